"""Responses in the OpenAI dialect, requested by the official client over HTTP."""

import json
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.responses import Response

from art.endpoint import streams
from art.errors import EngineError, InvalidRequestError
from tests.light.endpoint.scripted import Script

TOOL: Any = {
    "type": "function",
    "name": "search",
    "description": "Searches.",
    "parameters": {"type": "object", "properties": {"query": {"type": "string"}}},
    "strict": True,
}
CALL = '<tool_call>\n{"name": "search", "arguments": {"query": "é"}}\n</tool_call>'


async def respond(client: AsyncOpenAI, **fields: Any) -> Any:
    return await client.responses.create(**{"model": "agent", "input": "hi", **fields})


async def test_a_response_holds_the_text_and_its_numbers(
    client: AsyncOpenAI, script: Script
) -> None:
    response = await respond(client, instructions="Be brief.", metadata={"a": "b"})
    assert (response.output_text, response.status, response.error) == ("hello", "completed", None)
    assert [item.type for item in response.output] == ["message"]
    prompt = script.decode(script.prompts[0])
    assert prompt.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nhi")
    assert response.usage.input_tokens == len(script.prompts[0])
    assert response.usage.output_tokens == len(script.ids(script.text))
    assert (response.instructions, response.metadata) == ("Be brief.", {"a": "b"})
    assert (response.model_extra or {}).get("token_ids") is None


async def test_a_response_validates_against_the_clients_own_types(client: AsyncOpenAI) -> None:
    raw = await client.responses.with_raw_response.create(
        model="agent", input="hi", tools=[TOOL], tool_choice="auto", text={"verbosity": "medium"}
    )
    Response.model_validate_json(raw.content)


async def test_calls_are_items_beside_the_message(client: AsyncOpenAI, script: Script) -> None:
    script.text = f"Wait.\n{CALL}\n{CALL}<|im_end|>"
    response = await respond(client, tools=[TOOL])
    message, first, second = response.output
    assert (message.type, response.output_text) == ("message", "Wait.")
    assert (first.type, first.name, json.loads(first.arguments)) == (
        "function_call",
        "search",
        {"query": "é"},
    )
    assert first.call_id != second.call_id
    shown = json.loads(script.decode(script.prompts[0]).partition("# Tools\n")[2].split("\n")[0])
    assert shown["function"] == {key: value for key, value in TOOL.items() if key != "type"}


async def test_a_turn_that_is_sent_back_extends_its_own_tokens(
    client: AsyncOpenAI, script: Script
) -> None:
    script.text = f"Wait.\n{CALL}\n{CALL}<|im_end|>"
    extra = {"return_token_ids": True}
    first = await respond(client, tools=[TOOL], extra_body=extra)
    calls = [item for item in first.output if item.type == "function_call"]
    outputs = [
        {"type": "function_call_output", "call_id": call.call_id, "output": "5"} for call in calls
    ]
    history: Any = [{"role": "user", "content": "hi"}, *first.output, *outputs]
    second = await respond(client, tools=[TOOL], input=history, extra_body=extra)
    so_far = first.prompt_token_ids + first.token_ids
    assert first.token_ids == script.ids(script.text)
    assert len(first.token_logprobs) == len(first.token_ids)
    assert second.prompt_token_ids[: len(so_far)] == so_far
    rest = script.decode(second.prompt_token_ids[len(so_far) :])
    assert rest.count("<tool_response>\n5\n</tool_response>") == 2


@pytest.mark.parametrize(
    ("items", "prompt"),
    [
        (
            [{"role": "developer", "content": [{"type": "input_text", "text": "a"}]}],
            "<|im_start|>system\na<|im_end|>\n",
        ),
        (
            [
                {"type": "message", "role": "assistant", "content": "a"},
                {"type": "message", "role": "assistant", "content": "b"},
            ],
            "<|im_start|>assistant\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n",
        ),
        (
            [
                {"type": "function_call", "call_id": "1", "name": "search", "arguments": ""},
                {"type": "function_call", "call_id": "2", "name": "search", "arguments": "{}"},
                {
                    "type": "function_call_output",
                    "call_id": "1",
                    "output": [{"type": "input_text", "text": "x"}],
                },
            ],
            '<|im_start|>assistant\n<tool_call>\n{"name": "search", "arguments": {}}\n</tool_call>'
            '\n<tool_call>\n{"name": "search", "arguments": {}}\n</tool_call><|im_end|>\n'
            "<|im_start|>user\n<tool_response>\nx\n</tool_response><|im_end|>\n",
        ),
    ],
    ids=["developer", "two turns", "two calls of a turn"],
)
async def test_items_become_the_messages_that_they_were(
    client: AsyncOpenAI, script: Script, items: Any, prompt: str
) -> None:
    await respond(client, input=[*items, {"role": "user", "content": "go"}])
    expected = f"{prompt}<|im_start|>user\ngo<|im_end|>\n<|im_start|>assistant\n"
    assert script.decode(script.prompts[0]).rstrip() == expected.rstrip()


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"tools": [TOOL], "tool_choice": "required"}, "tool_calls: block"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "name": "search"}},
            "tool_calls: block",
        ),
        (
            {
                "tools": [TOOL],
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "required",
                    "tools": [{"type": "function", "name": "search"}],
                },
            },
            "tool_calls: block",
        ),
        ({"text": {"format": {"type": "json_object"}}}, 'content: %json {"type": "object"'),
        (
            {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "array"}}}},
            'content: %json {"type": "array"',
        ),
    ],
    ids=["required", "named", "allowed", "json_object", "json_schema"],
)
async def test_constraints_become_grammars(
    client: AsyncOpenAI, script: Script, fields: Any, rule: str
) -> None:
    await respond(client, **fields)
    assert rule in (script.options[0].controls.grammar or "")


async def test_a_response_that_reached_its_limit_is_incomplete(
    client: AsyncOpenAI, script: Script
) -> None:
    script.text, script.stop_reason = "hel", "length"
    response = await respond(client, max_output_tokens=3)
    assert (response.status, response.incomplete_details.reason) == (
        "incomplete",
        "max_output_tokens",
    )
    assert script.options[0].max_tokens == 3


async def test_logprobs_are_included_on_request(client: AsyncOpenAI, script: Script) -> None:
    response = await respond(client, include=["message.output_text.logprobs"])
    logprobs = response.output[0].content[0].logprobs
    assert "".join(each.token for each in logprobs) == script.text


async def test_a_stream_has_the_events_of_the_api_in_order(
    client: AsyncOpenAI, script: Script
) -> None:
    script.text = f"Wait.\n{CALL}<|im_end|>"
    events = [event async for event in await respond(client, tools=[TOOL], stream=True)]
    assert [event.type.removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    assert [event.sequence_number for event in events] == [*range(len(events))]
    assert len({events[0].response.id, events[-1].response.id}) == 1
    assert events[-1].response.output[1].name == "search"


async def test_the_clients_own_accumulation_reads_a_stream(
    client: AsyncOpenAI, script: Script
) -> None:
    script.text = f"Wait.\n{CALL}<|im_end|>"
    async with client.responses.stream(model="agent", input="hi", tools=[TOOL]) as stream:
        response = await stream.get_final_response()
    assert response.output_text == "Wait."
    assert [item.type for item in response.output] == ["message", "function_call"]


async def test_a_late_error_of_a_stream_fails_the_response(
    client: AsyncOpenAI, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "HEAD_WAITS_S", 0.01)
    script.delay, script.error = 0.2, EngineError("out of memory")
    events = [event async for event in await respond(client, stream=True)]
    assert events[-1].type == "response.failed"
    assert events[-1].response.error.message == "out of memory"


async def test_an_early_error_of_a_stream_has_its_own_status(
    client: AsyncOpenAI, script: Script
) -> None:
    script.error = InvalidRequestError("this sampler knows no grammars")
    with pytest.raises(openai.BadRequestError, match="knows no grammars"):
        await respond(client, stream=True)


@pytest.mark.parametrize(
    "fields",
    [
        {"store": True, "user": "me", "service_tier": "auto", "max_tool_calls": 3},
        {"previous_response_id": None, "truncation": "disabled", "background": False},
        {"reasoning": {"effort": "low", "summary": "auto"}, "text": {"verbosity": "medium"}},
        {"include": ["reasoning.encrypted_content"], "parallel_tool_calls": True},
        {"text": {"format": {"type": "text"}}, "tools": [], "stream_options": None},
        {"extra_body": {"max_output_tokens": 16.0, "seed": 3, "stop": "x"}},
    ],
    ids=lambda fields: ",".join(fields),
)
async def test_what_asks_for_what_happens_anyway_is_accepted(
    client: AsyncOpenAI, fields: Any
) -> None:
    assert (await respond(client, **fields)).output_text == "hello"


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id cannot be honoured"),
        ({"conversation": "conv_1"}, "conversation cannot be honoured"),
        ({"background": True}, "background cannot be honoured"),
        ({"truncation": "auto"}, "truncation cannot be honoured"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"input": []}, "input must be"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, r"input\[0\] is of type 'item_ref"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "'input_image', which is not text",
        ),
        ({"input": [{"role": "robot", "content": "x"}]}, r"input\[0\].role is 'robot'"),
        ({"input": [{"type": "function_call", "call_id": "1"}]}, r"input\[0\].name is missing"),
        ({"input": [{"type": "function_call_output", "call_id": "1"}]}, "output is missing"),
        ({"input": "x" * 1000}, "context is 600; shorten input"),
        ({"tool_choice": "required"}, "not among the tools"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format"),
    ],
)
async def test_a_request_that_cannot_be_honoured_is_refused(
    client: AsyncOpenAI, fields: Any, problem: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=problem):
        await respond(client, **fields)
