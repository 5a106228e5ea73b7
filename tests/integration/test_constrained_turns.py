"""Constrained turns, asked of the endpoint by official clients and sampled by a real engine."""

import json
from typing import Any

import openai
import pytest
import tinker

import art
from tests.engine_server import EngineServer
from tests.light.conftest import HERMES_TEMPLATE

pytest.importorskip("llguidance")

# No thinking: a model that knows nothing would not end it.
TEMPLATE = HERMES_TEMPLATE.partition("{{ '<think>")[0] + "{%- endif %}"
USER: Any = [{"role": "user", "content": "hi"}]
SCHEMA = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", "green"]},
        "number": {"type": "integer", "minimum": 1, "maximum": 99},
    },
    "required": ["colour", "number"],
    "additionalProperties": False,
}


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": SCHEMA}}


def check(arguments: Any) -> None:
    assert set(arguments) == {"colour", "number"}
    assert arguments["colour"] in ("red", "green")
    assert arguments["number"] in range(1, 100)


@pytest.fixture
async def client(backend: art.TinkerBackend, engine_server: EngineServer) -> openai.AsyncOpenAI:
    model = art.TrainableModel(
        name="agent",
        project="p",
        base_model=engine_server.base_model,
        _internal_config={"chat_template": TEMPLATE},
    )
    await model.register(backend)
    return model.openai_client()


async def ask(client: openai.AsyncOpenAI, **fields: Any) -> Any:
    arguments = {"model": "agent", "messages": USER, "max_tokens": 200, **fields}
    return await client.chat.completions.create(**arguments)


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("required", {"paint", "fill"}),
        ({"type": "function", "function": {"name": "fill"}}, {"fill"}),
    ],
    ids=["required", "named"],
)
async def test_a_demanded_call_is_made_with_arguments_of_its_schema(
    client: openai.AsyncOpenAI, choice: Any, names: set[str]
) -> None:
    completion = await ask(
        client,
        n=4,
        tools=[tool("paint"), tool("fill")],
        tool_choice=choice,
        parallel_tool_calls=False,
    )
    for each in completion.choices:
        assert each.finish_reason == "tool_calls"
        (call,) = each.message.tool_calls
        assert call.function.name in names
        check(json.loads(call.function.arguments))


async def test_the_logprobs_are_those_of_the_model_without_the_constraint(
    client: openai.AsyncOpenAI, engine_server: EngineServer
) -> None:
    completion = await ask(
        client, tools=[tool("paint")], tool_choice="required", logit_bias={"5": -50}, seed=1
    )
    choice = completion.choices[0]
    service = tinker.ServiceClient(base_url=engine_server.base_url, api_key=engine_server.api_key)
    base = await service.create_sampling_client(base_model=engine_server.base_model)
    tokens = tinker.ModelInput.from_ints(choice.prompt_token_ids + choice.token_ids)
    expected = (await base.compute_logprobs(tokens))[-len(choice.token_ids) :]
    await service.close("success")
    found = [token.logprob for token in choice.logprobs.content]
    assert found == pytest.approx(expected, abs=1e-5)
    # A model that knows nothing finds such a call unlikely.
    assert sum(found) < -20


async def test_json_follows_its_schema(client: openai.AsyncOpenAI) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    completion = await ask(client, n=4, response_format=schema, seed=3)
    for each in completion.choices:
        assert each.finish_reason == "stop"
        check(json.loads(each.message.content))


async def test_a_response_follows_its_schema_too(client: openai.AsyncOpenAI) -> None:
    response = await client.responses.create(
        model="agent",
        input="hi",
        max_output_tokens=200,
        tools=[{"type": "function", "name": "paint", "parameters": SCHEMA, "strict": True}],
        tool_choice="required",
        parallel_tool_calls=False,
    )
    (call,) = response.output
    assert call.type == "function_call"
    check(json.loads(call.arguments))


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"type": "odd"}, "odd"),
        ({"$ref": "#/nowhere"}, "nowhere"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
    ],
)
async def test_a_schema_without_a_grammar_is_refused(
    client: openai.AsyncOpenAI, schema: dict[str, Any], problem: str, stream: bool
) -> None:
    response_format = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    with pytest.raises(openai.BadRequestError, match=problem):
        await ask(client, response_format=response_format, stream=stream)
