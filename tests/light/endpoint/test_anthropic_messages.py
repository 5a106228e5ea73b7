"""Messages in Anthropic's dialect, requested over HTTP in the form of its API."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from art.endpoint import streams
from art.endpoint.server import OpenAIServer
from art.errors import EngineDiedError, EngineError, InvalidRequestError
from tests.light.endpoint.scripted import Script

TOOL: dict[str, Any] = {
    "name": "search",
    "description": "Searches.",
    "input_schema": {"type": "object", "properties": {"query": {"type": "string"}}},
}
CALL = '<tool_call>\n{"name": "search", "arguments": {"query": "é"}}\n</tool_call>'
BODY: dict[str, Any] = {
    "model": "agent",
    "max_tokens": 50,
    "messages": [{"role": "user", "content": "hi"}],
}


@pytest.fixture
async def http(server: OpenAIServer) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"x-api-key": server.api_key, "anthropic-version": "2023-06-01"}
    base_url = f"http://127.0.0.1:{server.port}/v1"
    async with httpx.AsyncClient(base_url=base_url, headers=headers) as http:
        yield http


async def ask(http: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    return await http.post("/messages", json={**BODY, **fields})


def events_of(response: httpx.Response) -> list[tuple[str, dict[str, Any]]]:
    """The names of a stream's events with their data."""
    events = []
    for event in response.text.strip().split("\n\n"):
        name, data = (line.partition(": ")[2] for line in event.split("\n"))
        events.append((name, json.loads(data)))
    return events


async def test_a_message_holds_blocks_and_numbers(http: httpx.AsyncClient, script: Script) -> None:
    message = (await ask(http, system="Be brief.")).json()
    assert message["content"] == [{"type": "text", "text": "hello"}]
    assert (message["type"], message["role"], message["model"]) == ("message", "assistant", "agent")
    assert (message["stop_reason"], message["stop_sequence"]) == ("end_turn", None)
    assert message["usage"]["input_tokens"] == len(script.prompts[0])
    assert message["usage"]["output_tokens"] == len(script.ids(script.text))
    assert script.decode(script.prompts[0]).startswith("<|im_start|>system\nBe brief.<|im_end|>")
    assert "token_ids" not in message


async def test_calls_are_tool_use_blocks(http: httpx.AsyncClient, script: Script) -> None:
    script.text = f"Wait.\n{CALL}<|im_end|>"
    message = (await ask(http, tools=[TOOL])).json()
    text, tool_use = message["content"]
    assert (text["text"], message["stop_reason"]) == ("Wait.", "tool_use")
    assert (tool_use["type"], tool_use["name"]) == ("tool_use", "search")
    assert tool_use["input"] == {"query": "é"}
    shown = json.loads(script.decode(script.prompts[0]).partition("# Tools\n")[2].split("\n")[0])
    assert shown["function"]["parameters"] == TOOL["input_schema"]


async def test_a_turn_that_is_sent_back_extends_its_own_tokens(
    http: httpx.AsyncClient, script: Script
) -> None:
    script.text = f"Wait.\n{CALL}<|im_end|>"
    first = (await ask(http, tools=[TOOL], return_token_ids=True)).json()
    result = {"type": "tool_result", "tool_use_id": first["content"][1]["id"], "content": "5"}
    messages = [
        *BODY["messages"],
        {"role": "assistant", "content": first["content"]},
        {"role": "user", "content": [result, {"type": "text", "text": "go on"}]},
    ]
    second = (await ask(http, tools=[TOOL], messages=messages, return_token_ids=True)).json()
    so_far = first["prompt_token_ids"] + first["token_ids"]
    assert len(first["token_logprobs"]) == len(first["token_ids"])
    assert second["prompt_token_ids"][: len(so_far)] == so_far
    rest = script.decode(second["prompt_token_ids"][len(so_far) :])
    assert "<tool_response>\n5\n</tool_response><|im_end|>\n<|im_start|>user\ngo on" in rest


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ({"role": "user", "content": [{"type": "text", "text": "a"}]}, "user\na<|im_end|>"),
        (
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "1",
                        "content": [{"type": "text", "text": "x"}],
                        "is_error": True,
                    }
                ],
            },
            "user\n<tool_response>\nx\n</tool_response><|im_end|>",
        ),
        ({"role": "system", "content": "a"}, "system\na<|im_end|>"),
        ({"role": "user", "content": ""}, "user\n<|im_end|>"),
    ],
    ids=["text block", "result of blocks", "system", "empty"],
)
async def test_blocks_become_messages(
    http: httpx.AsyncClient, script: Script, message: dict[str, Any], shown: str
) -> None:
    await ask(http, messages=[message])
    assert script.decode(script.prompts[0]).startswith(f"<|im_start|>{shown}\n")


async def test_system_blocks_are_joined_and_their_cache_control_has_no_effect(
    http: httpx.AsyncClient, script: Script
) -> None:
    blocks = [
        {"type": "text", "text": text, "cache_control": {"type": "ephemeral"}} for text in "ab"
    ]
    await ask(http, system=blocks)
    assert script.decode(script.prompts[0]).startswith("<|im_start|>system\nab<|im_end|>")


@pytest.mark.parametrize(
    ("text", "stop_reason", "reason", "sequence"),
    [
        ("one STOP", "stop", "stop_sequence", "STOP"),
        ("one", "length", "max_tokens", None),
        ("one<|im_end|>", "stop", "end_turn", None),
    ],
)
async def test_the_reason_of_the_end_is_named(
    http: httpx.AsyncClient,
    script: Script,
    text: str,
    stop_reason: Any,
    reason: str,
    sequence: str | None,
) -> None:
    script.text, script.stop_reason = text, stop_reason
    message = (await ask(http, stop_sequences=["STOP"])).json()
    assert (message["stop_reason"], message["stop_sequence"]) == (reason, sequence)
    assert message["content"][0]["text"].strip() == "one"


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"tools": [TOOL], "tool_choice": {"type": "any"}}, "tool_calls: block"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "search"}}, "tool_calls: block"),
        ({"tools": [TOOL], "tool_choice": {"type": "auto"}}, None),
        ({"tools": [TOOL], "tool_choice": {"type": "none"}}, None),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
            'content: %json {"type": "object"',
        ),
    ],
    ids=["any", "tool", "auto", "none", "schema"],
)
async def test_constraints_become_grammars(
    http: httpx.AsyncClient, script: Script, fields: dict[str, Any], rule: str | None
) -> None:
    await ask(http, **fields)
    grammar = script.options[0].controls.grammar
    assert grammar is None if rule is None else rule in (grammar or "")


async def test_without_parallel_use_there_is_one_call(
    http: httpx.AsyncClient, script: Script
) -> None:
    script.text = f"{CALL}\n{CALL}<|im_end|>"
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    message = (await ask(http, tools=[TOOL], tool_choice=choice)).json()
    assert [block["type"] for block in message["content"]] == ["tool_use"]


@pytest.mark.parametrize(("kind", "thought"), [("enabled", False), ("disabled", True)])
async def test_thinking_is_told_to_the_template(
    http: httpx.AsyncClient, script: Script, kind: str, thought: bool
) -> None:
    await ask(http, thinking={"type": kind, "budget_tokens": 1024})
    prompt = script.decode(script.prompts[0])
    assert prompt.rstrip().endswith("<think>\n\n</think>") is thought


async def test_a_stream_has_the_events_of_the_api_in_order(
    http: httpx.AsyncClient, script: Script
) -> None:
    script.text = f"Wait.\n{CALL}<|im_end|>"
    events = events_of(await ask(http, tools=[TOOL], stream=True))
    block = ["content_block_start", "content_block_delta", "content_block_stop"]
    names = ["message_start", *block, *block, "message_delta", "message_stop"]
    assert [name for name, _ in events] == names == [data["type"] for _, data in events]
    deltas = [data["delta"] for name, data in events if name == "content_block_delta"]
    assert deltas[0] == {"type": "text_delta", "text": "Wait."}
    assert json.loads(deltas[1]["partial_json"]) == {"query": "é"}
    assert events[-2][1]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert events[-2][1]["usage"]["output_tokens"] == len(script.ids(script.text))


async def test_a_late_error_of_a_stream_is_an_event(
    http: httpx.AsyncClient, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "HEAD_WAITS_S", 0.01)
    script.delay, script.error = 0.2, EngineError("out of memory")
    events = events_of(await ask(http, stream=True))
    assert [name for name, _ in events] == ["message_start", "error"]
    assert events[1][1]["error"] == {"type": "api_error", "message": "out of memory"}


async def test_tokens_are_counted_also_beyond_the_context(
    http: httpx.AsyncClient, script: Script
) -> None:
    body = {"model": "agent", "messages": BODY["messages"], "tools": [TOOL], "system": "x"}
    counted = await http.post("/messages/count_tokens", json=body)
    await ask(http, tools=[TOOL], system="x")
    assert counted.json() == {"input_tokens": len(script.prompts[0])}
    long = {**body, "messages": [{"role": "user", "content": "x" * 1000}]}
    assert (await http.post("/messages/count_tokens", json=long)).json()["input_tokens"] > 1000


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role is 'robot'"),
        ({"messages": [{"role": "user", "content": 5}]}, "must be a text or a list of content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
            "'image', which cannot stand there",
        ),
        (
            {"messages": [{"role": "assistant", "content": [{"type": "tool_use"}]}]},
            "tool_use without a name",
        ),
        (
            {"messages": [*BODY["messages"], {"role": "assistant", "content": "Sure, "}]},
            "its turn cannot be continued",
        ),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools"),
        ({"tools": [{"name": "search"}]}, "input_schema"),
        ({"tool_choice": {"type": "any"}}, "not among the tools"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice"),
        ({"mcp_servers": [{"name": "x"}]}, "mcp_servers cannot be honoured"),
        ({"stop_sequences": [""]}, "stop"),
        ({"messages": [{"role": "user", "content": "x" * 1000}]}, "context is 600"),
    ],
)
async def test_a_request_that_cannot_be_honoured_is_refused_in_anthropics_shape(
    http: httpx.AsyncClient, fields: dict[str, Any], problem: str
) -> None:
    response = await ask(http, **fields)
    error = response.json()
    assert (response.status_code, error["type"]) == (400, "error")
    assert error["error"]["type"] == "invalid_request_error"
    assert problem in error["error"]["message"]


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (InvalidRequestError("x"), 400, "invalid_request_error"),
        (EngineError("x"), 502, "api_error"),
        (EngineDiedError("x"), 503, "overloaded_error"),
        (KeyError("x"), 500, "api_error"),
    ],
)
async def test_a_failure_has_a_status_and_a_type(
    http: httpx.AsyncClient, script: Script, error: Exception, status: int, kind: str
) -> None:
    script.error = error
    response = await ask(http)
    assert (response.status_code, response.json()["error"]["type"]) == (status, kind)


async def test_the_official_client_reads_messages_and_streams(
    server: OpenAIServer, script: Script
) -> None:
    anthropic = pytest.importorskip("anthropic")
    script.text = f"Wait.\n{CALL}<|im_end|>"
    base_url = server.base_url.removesuffix("/v1")
    async with anthropic.AsyncAnthropic(
        base_url=base_url, api_key=server.api_key, max_retries=0
    ) as client:
        fields: Any = {**BODY, "tools": [TOOL]}
        message = await client.messages.create(**fields)
        async with client.messages.stream(**fields) as stream:
            streamed = await stream.get_final_message()
        counted = await client.messages.count_tokens(
            model="agent", messages=BODY["messages"], tools=[TOOL]
        )
        with pytest.raises(anthropic.NotFoundError, match="no model 'other'"):
            await client.messages.create(**{**fields, "model": "other"})
    for each in (message, streamed):
        text, tool_use = each.content
        assert (text.text, tool_use.name, tool_use.input) == ("Wait.", "search", {"query": "é"})
        assert each.stop_reason == "tool_use"
    assert counted.input_tokens == message.usage.input_tokens
    assert streamed.usage.output_tokens == message.usage.output_tokens
