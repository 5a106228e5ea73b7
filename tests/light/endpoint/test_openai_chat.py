"""Chat completions in the OpenAI dialect, requested by the official client over HTTP."""

import json
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from art.endpoint import streams
from art.endpoint.ignored_fields import HEADER
from art.errors import EngineDiedError, EngineError, InvalidRequestError
from art.formats.sampling_controls import NO_CONTROLS, SamplingControls
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


async def test_controls_reach_the_completer(client: AsyncOpenAI, script: Script) -> None:
    await ask(
        client,
        logit_bias={"5": -100, "7": 1.5},
        frequency_penalty=0.5,
        presence_penalty=-0.5,
        extra_body={"min_p": 0.1, "repetition_penalty": 1.2},
    )
    assert script.options[0].controls == SamplingControls(
        min_p=0.1,
        logit_bias=((5, -100.0), (7, 1.5)),
        frequency_penalty=0.5,
        presence_penalty=-0.5,
        repetition_penalty=1.2,
    )


@pytest.mark.parametrize(
    ("effort", "kwargs", "thought"),
    [("none", None, "<think>\n\n</think>"), ("high", None, ""), ("none", True, "")],
)
async def test_no_effort_turns_thinking_off_unless_the_template_is_told_otherwise(
    client: AsyncOpenAI, script: Script, effort: Any, kwargs: bool | None, thought: str
) -> None:
    extra = {} if kwargs is None else {"chat_template_kwargs": {"enable_thinking": kwargs}}
    await ask(client, reasoning_effort=effort, extra_body=extra)
    prompt = script.decode(script.prompts[0])
    assert prompt.rpartition("<|im_start|>assistant\n")[2].strip() == thought


async def test_stop_token_ids_end_a_turn_and_are_kept(client: AsyncOpenAI, script: Script) -> None:
    (semicolon,) = script.ids(";")
    script.text = "one;two<|im_end|>"
    choice = (await ask(client, extra_body={"stop_token_ids": [semicolon]})).choices[0]
    assert (choice.message.content, choice.finish_reason) == ("one", "stop")
    assert choice.token_ids == script.ids("one;")
    assert semicolon in script.options[0].stop


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


@pytest.mark.parametrize(
    ("parallel", "kept"),
    [(None, f"Wait.\n{CALL}\n{CALL}<|im_end|>"), (False, f"Wait.\n{CALL}")],
)
async def test_a_turn_without_parallel_calls_ends_with_its_first_call(
    client: AsyncOpenAI, script: Script, parallel: bool | None, kept: str
) -> None:
    script.text = f"Wait.\n{CALL}\n{CALL}<|im_end|>"
    fields = {} if parallel is None else {"parallel_tool_calls": parallel}
    choice = (await ask(client, tools=TOOLS, **fields)).choices[0]
    assert len(choice.message.tool_calls) == kept.count(CALL)
    assert (choice.message.content, choice.finish_reason) == ("Wait.", "tool_calls")
    assert choice.token_ids == script.ids(kept)
    assert len(choice.logprobs.content) == len(choice.token_ids)


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "search"}}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"type": "function", "function": {"name": "search", "arguments": ""}}],
        },
        {"role": "assistant", "content": "", "function_call": {"name": "search", "arguments": " "}},
    ],
    ids=["no arguments", "empty arguments", "function_call"],
)
async def test_a_call_without_arguments_is_shown_as_one_of_none(
    client: AsyncOpenAI, script: Script, message: dict[str, Any]
) -> None:
    answer = {"role": "function", "name": "search", "content": "7"}
    await ask(client, tools=TOOLS, messages=[*USER, message, answer])
    prompt = script.decode(script.prompts[0])
    assert '<tool_call>\n{"name": "search", "arguments": {}}\n</tool_call>' in prompt
    assert "<tool_response>\n7\n</tool_response>" in prompt


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_return_token_ids_has_the_shape_of_vllm(
    client: AsyncOpenAI, script: Script, stream: bool
) -> None:
    answer = await ask(client, n=2, stream=stream, extra_body={"return_token_ids": True})
    parts = [part async for part in answer] if stream else [answer]
    prompts = [part.model_extra.get("prompt_token_ids") for part in parts]
    assert prompts == [script.prompts[0], *[None] * (len(parts) - 1)]
    token_ids: dict[int, list[int]] = {0: [], 1: []}
    for choice in (choice for part in parts for choice in part.choices):
        token_ids[choice.index] += choice.model_extra.get("token_ids", [])
    assert token_ids == {0: script.ids(script.text), 1: script.ids(script.text)}


async def test_tokens_are_named_by_their_ids_on_request(
    client: AsyncOpenAI, script: Script
) -> None:
    completion = await ask(client, logprobs=True, extra_body={"return_tokens_as_token_ids": True})
    names = [token.token for token in completion.choices[0].logprobs.content]
    assert names == [f"token_id:{token_id}" for token_id in script.ids(script.text)]


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


async def test_an_early_error_of_a_stream_has_its_own_status(
    client: AsyncOpenAI, script: Script
) -> None:
    script.error = InvalidRequestError("this sampler knows no grammars")
    with pytest.raises(openai.BadRequestError, match="knows no grammars"):
        await ask(client, stream=True)


async def test_a_late_error_of_a_stream_is_an_event(
    client: AsyncOpenAI, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "HEAD_WAITS_S", 0.01)
    monkeypatch.setattr(streams, "KEEP_ALIVE_S", 0.01)
    script.delay, script.error = 0.2, EngineError("out of memory")
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
    ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools"),
    ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools"),
    ({"tool_choice": "required"}, "demands a tool call, which is not among the tools"),
    (
        {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "other"}}},
        "demands a call of 'other', which is not among the tools",
    ),
    ({"frequency_penalty": 2.5}, "frequency_penalty"),
    ({"logit_bias": {"x": 1}}, "'x' is no token id"),
    ({"logit_bias": {"5": 101}}, "must be within ±100"),
    ({"response_format": {"type": "json_schema"}}, "response_format"),
    ({"response_format": {"type": "grammar"}}, "response_format"),
    ({"extra_body": {"structured_outputs": {"regex": "a+"}}}, "structured_outputs.regex cannot be"),
    ({"extra_body": {"min_p": 2}}, "min_p"),
    ({"extra_body": {"ignore_eos": True}}, "ignore_eos cannot be honoured here: it may be False"),
    ({"extra_body": {"prompt_logprobs": 1}}, "prompt_logprobs cannot be honoured"),
    ({"modalities": ["text", "audio"]}, "modalities cannot be honoured"),
    ({"functions": [{"name": "f"}]}, "functions cannot be honoured"),
    ({"extra_body": {"stream_options": {}}}, "stream"),
    ({"extra_body": {"chat_template_kwargs": {"tokenize": 1}}}, r"may not set \['tokenize'\]"),
    ({"messages": [{"role": ["user"], "content": "x"}]}, r"messages\[0\].role is \['user'\]"),
    ({"messages": [{"role": "assistant", "tool_calls": {"a": 1}}]}, "must be a list of function"),
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


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "text"}},
        {"logit_bias": {}},
        {"store": False, "metadata": {"a": "b"}, "user": "me", "service_tier": "auto"},
        {"prompt_cache_key": "k", "safety_identifier": "s", "prompt_cache_retention": "24h"},
        {"reasoning_effort": None},
        {"modalities": ["text"], "verbosity": "medium", "audio": None},
        {"frequency_penalty": 0, "presence_penalty": 0.0, "n": 1, "stop": [], "seed": None},
        {"parallel_tool_calls": True, "tools": []},
        {"tool_choice": "auto"},
        {"tool_choice": "none"},
        {"logprobs": False, "top_logprobs": 0},
        {"stream": False},
        {"extra_body": {"min_p": 0.0, "repetition_penalty": 1.0, "top_k": -1}},
        {"extra_body": {"min_p": 0, "repetition_penalty": 1, "top_k": 0}},
        {"extra_body": {"skip_special_tokens": True, "spaces_between_special_tokens": True}},
        {"extra_body": {"add_generation_prompt": True, "continue_final_message": False}},
        {"extra_body": {"ignore_eos": False, "min_tokens": 0, "best_of": 1, "bad_words": []}},
        {"extra_body": {"max_tokens": 16.0, "top_k": 5.0, "seed": 1.0}},
        {"extra_body": {"functions": None, "function_call": "none", "echo": False}},
    ],
    ids=lambda fields: ",".join(fields.get("extra_body", fields)),
)
async def test_a_value_that_asks_for_what_happens_anyway_changes_nothing(
    client: AsyncOpenAI, script: Script, fields: dict[str, Any]
) -> None:
    response = await client.chat.completions.with_raw_response.create(
        model="agent", messages=USER, **fields
    )
    assert HEADER not in response.headers
    assert script.options[0].controls == NO_CONTROLS


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
