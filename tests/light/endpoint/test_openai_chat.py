"""Chat completions in the OpenAI dialect, requested by the official client over HTTP."""

import json
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from art.errors import EngineDiedError, EngineError, InvalidRequestError
from tests.light.endpoint.scripted import Script

USER: Any = [{"role": "user", "content": "hi"}]
TOOLS: Any = [
    {
        "type": "function",
        "function": {"name": "search", "parameters": {"properties": {"query": {"type": "string"}}}},
    }
]
CALL = '<tool_call>\n{"name": "search", "arguments": {"query": "é"}}\n</tool_call>'


async def ask(client: AsyncOpenAI, **fields: Any) -> Any:
    return await client.chat.completions.create(**{"model": "agent", "messages": USER, **fields})


async def test_a_choice_carries_its_exact_tokens(client: AsyncOpenAI, script: Script) -> None:
    completion = await ask(client)
    choice = completion.choices[0]
    assert (choice.message.content, choice.finish_reason) == ("hello", "stop")
    assert choice.token_ids == script.ids("hello<|im_end|>")
    assert choice.prompt_token_ids == script.prompts[0]
    assert script.decode(choice.prompt_token_ids).endswith("<|im_start|>assistant\n")
    assert [token.logprob for token in choice.logprobs.content] == [
        -i / 8 for i in range(1, len(choice.token_ids) + 1)
    ]
    assert "".join(token.token for token in choice.logprobs.content) == "hello<|im_end|>"
    assert completion.usage.completion_tokens == len(choice.token_ids)
    assert completion.usage.prompt_tokens == len(choice.prompt_token_ids)


async def test_parameters_reach_the_completer(client: AsyncOpenAI, script: Script) -> None:
    await ask(
        client, n=3, temperature=0.5, top_p=0.9, max_tokens=7, seed=4, extra_body={"top_k": 5}
    )
    options = script.options[0]
    assert (options.num_samples, options.temperature, options.top_p) == (3, 0.5, 0.9)
    assert (options.max_tokens, options.seed, options.top_k) == (7, 4, 5)
    # Never left to the server: none would mean whatever it takes for the end of a turn.
    assert list(options.stop) == [script.token_id("<|im_end|>"), script.token_id("<|endoftext|>")]


async def test_stop_texts_are_sent_with_the_texts_of_the_end_of_turn(
    client: AsyncOpenAI, script: Script
) -> None:
    await ask(client, stop=["a", "b"])
    assert list(script.options[0].stop) == ["a", "b", "<|im_end|>", "<|endoftext|>"]


async def test_parameters_that_are_left_out_have_the_defaults_of_the_openai_api(
    client: AsyncOpenAI, script: Script
) -> None:
    await ask(client, max_completion_tokens=9)
    options = script.options[0]
    assert (options.max_tokens, options.temperature, options.top_p) == (9, 1, 1)
    assert (options.num_samples, options.top_k, options.seed) == (1, -1, None)


async def test_n_gives_that_many_choices(client: AsyncOpenAI) -> None:
    completion = await ask(client, n=3)
    assert [choice.index for choice in completion.choices] == [0, 1, 2]


@pytest.mark.parametrize(
    ("text", "stop", "content", "kept"),
    [
        ("one STOP", "STOP", "one ", "one STOP"),
        ("one STOP two", "STOP", "one ", "one STOP"),
        ("one\n\ntwo", ["x", "\n"], "one", "one\n"),
        # The server went on past the end of the turn.
        ("one<|im_end|>\n<|im_start|>user", "STOP", "one", "one<|im_end|>"),
        ("one<|im_end|>STOP", None, "one", "one<|im_end|>"),
        ("STOP", "STOP", "", "STOP"),
    ],
)
async def test_a_stop_ends_the_content_and_the_tokens(
    client: AsyncOpenAI, script: Script, text: str, stop: Any, content: str, kept: str
) -> None:
    script.text, script.stop_reason = text, "length"
    choice = (await ask(client, stop=stop)).choices[0]
    assert (choice.message.content, choice.finish_reason) == (content, "stop")
    assert choice.token_ids == script.ids(kept)
    assert len(choice.logprobs.content) == len(choice.token_ids)


async def test_a_sample_that_reached_the_limit_has_finish_reason_length(
    client: AsyncOpenAI, script: Script
) -> None:
    script.text, script.stop_reason = "hel", "length"
    choice = (await ask(client)).choices[0]
    assert (choice.message.content, choice.finish_reason) == ("hel", "length")
    assert choice.token_ids == script.ids("hel")


async def test_a_token_of_half_a_character_has_no_bytes(
    client: AsyncOpenAI, script: Script
) -> None:
    script.text = "é<|im_end|>"
    content = (await ask(client)).choices[0].logprobs.content
    assert [token.bytes for token in content] == [None, None, list(b"<|im_end|>")]


async def test_tool_calls_are_parsed_out_of_the_content(
    client: AsyncOpenAI, script: Script
) -> None:
    script.text = f"Wait.\n{CALL}\n{CALL}<|im_end|>"
    choice = (await ask(client, tools=TOOLS)).choices[0]
    assert (choice.message.content, choice.finish_reason) == ("Wait.", "tool_calls")
    calls = choice.message.tool_calls
    assert [(call.function.name, json.loads(call.function.arguments)) for call in calls] == [
        ("search", {"query": "é"})
    ] * 2
    assert calls[0].id != calls[1].id
    assert choice.token_ids == script.ids(script.text)
    assert "search" in script.decode(choice.prompt_token_ids)


async def test_a_tool_calling_turn_extends_the_tokens_before_it(
    client: AsyncOpenAI, script: Script
) -> None:
    script.text = f"Wait.\n{CALL}<|im_end|>"
    first = (await ask(client, tools=TOOLS)).choices[0]
    messages = [*USER, first.message, {"role": "tool", "tool_call_id": "x", "content": "5"}]
    second = (await ask(client, tools=TOOLS, messages=messages)).choices[0]
    so_far = first.prompt_token_ids + first.token_ids
    assert second.prompt_token_ids[: len(so_far)] == so_far


@pytest.mark.parametrize("fields", [{}, {"tools": TOOLS, "tool_choice": "none"}])
async def test_a_call_is_content_where_no_tools_are_offered(
    client: AsyncOpenAI, script: Script, fields: dict[str, Any]
) -> None:
    script.text = f"{CALL}<|im_end|>"
    choice = (await ask(client, **fields)).choices[0]
    assert (choice.message.content, choice.finish_reason) == (CALL, "stop")
    assert "search" not in script.decode(choice.prompt_token_ids)


async def test_a_malformed_call_is_content(client: AsyncOpenAI, script: Script) -> None:
    script.text = "<tool_call>{oops</tool_call><|im_end|>"
    choice = (await ask(client, tools=TOOLS)).choices[0]
    assert choice.message.content == "<tool_call>{oops</tool_call>"
    assert (choice.message.tool_calls, choice.finish_reason) == (None, "stop")


async def test_a_stream_carries_content_calls_tokens_and_usage(
    client: AsyncOpenAI, script: Script
) -> None:
    script.text = f"Wait.\n{CALL}<|im_end|>"
    stream = await ask(
        client, tools=TOOLS, n=2, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 2 * len(script.ids(script.text))
    for index in range(2):
        own = [c.choices[0] for c in chunks if c.choices and c.choices[0].index == index]
        assert "".join(choice.delta.content or "" for choice in own) == "Wait."
        (call,) = [call for choice in own for call in choice.delta.tool_calls or []]
        assert (call.index, call.function.name) == (0, "search")
        assert [choice.finish_reason for choice in own] == [None, "tool_calls"]
        assert own[-1].token_ids == script.ids(script.text)
        assert own[-1].prompt_token_ids == script.prompts[0]
        assert len(
            [t for choice in own if choice.logprobs for t in choice.logprobs.content]
        ) == len(own[-1].token_ids)


async def test_the_clients_own_accumulation_reads_a_stream(
    client: AsyncOpenAI, script: Script
) -> None:
    async with client.chat.completions.stream(model="agent", messages=USER) as stream:
        completion = await stream.get_final_completion()
    assert completion.choices[0].message.content == "hello"
    assert completion.choices[0].finish_reason == "stop"


async def test_an_error_during_a_stream_reaches_the_client(
    client: AsyncOpenAI, script: Script
) -> None:
    script.error = EngineError("out of memory")
    stream = await ask(client, stream=True)
    with pytest.raises(openai.APIError, match="out of memory"):
        [chunk async for chunk in stream]


BAD_REQUESTS: list[tuple[dict[str, Any], str]] = [
    ({"model": "other"}, "there is no model 'other'"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "robot", "content": "x"}]}, r"messages\[0\].role"),
    ({"messages": [{"role": "user"}]}, r"messages\[0\].content is missing"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "not text"),
    ({"messages": [{"role": "user", "content": "x" * 1000}]}, "context is 600"),
    ({"max_tokens": 600}, "context is 600"),
    ({"n": 0}, "n: "),
    ({"temperature": -1}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"max_tokens": 5, "max_completion_tokens": 6}, "differ"),
    ({"stop": [""]}, "stop"),
    ({"logprobs": True, "top_logprobs": 2}, "returns no top_logprobs"),
    ({"top_logprobs": 2}, "needs logprobs"),
    ({"tools": TOOLS, "tool_choice": "required"}, "tool_choice"),
    ({"tools": TOOLS, "parallel_tool_calls": False}, "parallel_tool_calls"),
    ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools"),
    ({"frequency_penalty": 0.5}, "frequency_penalty"),
    ({"response_format": {"type": "json_object"}}, "knows no field response_format"),
    ({"extra_body": {"stream_options": {}}}, "stream"),
    ({"extra_body": {"chat_template_kwargs": {"tokenize": 1}}}, r"may not set \['tokenize'\]"),
    ({"messages": [{"role": ["user"], "content": "x"}]}, r"messages\[0\].role is \['user'\]"),
    ({"messages": [{"role": "assistant", "tool_calls": {"a": 1}}]}, "must be a list of function"),
    ({"extra_body": {"user": [*range(9)]}}, "user"),
    ({"seed": 2**64}, "seed"),
    ({"max_tokens": 10**30}, "max_tokens"),
]


@pytest.mark.parametrize(("fields", "problem"), BAD_REQUESTS)
async def test_a_request_that_cannot_be_honoured_is_refused(
    client: AsyncOpenAI, fields: dict[str, Any], problem: str
) -> None:
    with pytest.raises(openai.APIStatusError, match=problem) as caught:
        await ask(client, **fields)
    assert caught.value.status_code == (404 if "model" in fields else 400)
    assert isinstance(caught.value.body, dict)
    assert set(caught.value.body) == {"message", "type", "param", "code"}


async def test_defaults_of_unsupported_fields_are_accepted(client: AsyncOpenAI) -> None:
    await ask(client, frequency_penalty=0, presence_penalty=0.0, user="me", tool_choice="auto")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidRequestError("x"), 400),
        (EngineError("x"), 502),
        (EngineDiedError("x"), 503),
        (KeyError("x"), 500),
    ],
)
async def test_an_engines_failure_becomes_a_status(
    client: AsyncOpenAI, script: Script, error: Exception, status: int
) -> None:
    script.error = error
    with pytest.raises(openai.APIStatusError, match="x") as caught:
        await ask(client)
    assert caught.value.status_code == status
