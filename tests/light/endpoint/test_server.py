"""The endpoint, asked by the official client over HTTP.

What is sampled is scripted here, so that every way a sample can end is tried; that real samples
come through is for the tests with an engine.
"""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import openai
import pytest
import tinker
from openai import AsyncOpenAI
from transformers import PreTrainedTokenizerFast

from art.chat.template import ChatTemplate
from art.endpoint.served_models import Samplers
from art.endpoint.server import OpenAIServer
from art.errors import EngineDiedError, EngineError, InvalidRequestError, PortInUseError

USER: Any = [{"role": "user", "content": "hi"}]
TOOLS: Any = [
    {
        "type": "function",
        "function": {"name": "search", "parameters": {"properties": {"query": {"type": "string"}}}},
    }
]
CALL = '<tool_call>\n{"name": "search", "arguments": {"query": "é"}}\n</tool_call>'


@dataclass
class Script:
    """A sampler that says ``text`` and keeps what it was asked."""

    tokenizer: PreTrainedTokenizerFast
    text: str = "hello<|im_end|>"
    stop_reason: Any = "stop"
    error: Exception | None = None
    asked: list[dict[str, Any]] = field(default_factory=list)
    opened: list[str | None] = field(default_factory=list)

    async def open(self, path: str | None) -> "Script":
        self.opened.append(path)
        await asyncio.sleep(0.01)
        return self

    async def sample(
        self, prompt: list[int], num_samples: int, params: Any, topk_logprobs: int
    ) -> tinker.types.SampleResponse:
        self.asked.append({"prompt": prompt, "params": params, "topk": topk_logprobs})
        if self.error is not None:
            raise self.error
        tokens = self.tokenizer.encode(self.text, add_special_tokens=False)
        logprobs = -np.arange(1, len(tokens) + 1, dtype=np.float32) / 8
        samples = [
            tinker.SampledSequence(
                self.stop_reason, str(i), tokens_np=np.array(tokens, np.int32), logprobs_np=logprobs
            )
            for i in range(num_samples)
        ]
        return tinker.types.SampleResponse(samples)

    def ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)


@pytest.fixture
def script(make_tokenizer: Callable[[str], PreTrainedTokenizerFast]) -> Script:
    return Script(make_tokenizer("hermes"))


@pytest.fixture
async def server(script: Script) -> AsyncIterator[OpenAIServer]:
    samplers = Samplers("agent", "org/base", script.open)
    samplers.publish(0, "tinker://run/sampler_weights/0000")
    samplers.publish(1, "tinker://run/sampler_weights/0001")
    server = OpenAIServer(samplers, ChatTemplate(script.tokenizer), max_context_length=600)
    await server.start()
    yield server
    await server.stop()
    assert not any(thread.name == "art-openai-server" for thread in threading.enumerate())


@pytest.fixture
async def client(server: OpenAIServer) -> AsyncIterator[AsyncOpenAI]:
    url = f"http://{server.host}:{server.port}/v1"
    async with AsyncOpenAI(base_url=url, api_key=server.api_key, max_retries=0) as client:
        yield client


async def ask(client: AsyncOpenAI, **fields: Any) -> Any:
    return await client.chat.completions.create(**{"model": "agent", "messages": USER, **fields})


async def test_a_choice_carries_its_exact_tokens(client: AsyncOpenAI, script: Script) -> None:
    completion = await ask(client)
    choice = completion.choices[0]
    assert (choice.message.content, choice.finish_reason) == ("hello", "stop")
    assert choice.token_ids == script.ids("hello<|im_end|>")
    assert choice.prompt_token_ids == script.asked[0]["prompt"]
    assert script.tokenizer.decode(choice.prompt_token_ids).endswith("<|im_start|>assistant\n")
    assert [token.logprob for token in choice.logprobs.content] == [
        -i / 8 for i in range(1, len(choice.token_ids) + 1)
    ]
    assert "".join(token.token for token in choice.logprobs.content) == "hello<|im_end|>"
    assert completion.usage.completion_tokens == len(choice.token_ids)
    assert completion.usage.prompt_tokens == len(choice.prompt_token_ids)


async def test_parameters_reach_the_sampler(client: AsyncOpenAI, script: Script) -> None:
    await ask(
        client, n=3, temperature=0.5, top_p=0.9, max_tokens=7, seed=4, extra_body={"top_k": 5}
    )
    params = script.asked[0]["params"]
    assert (params.temperature, params.top_p, params.max_tokens) == (0.5, 0.9, 7)
    assert (params.seed, params.top_k) == (4, 5)
    # Never left to the server: None would mean whatever it takes for the end of a turn.
    assert params.stop == script.tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    await ask(client, max_completion_tokens=9, stop=["a", "b"])
    params = script.asked[1]["params"]
    assert (params.max_tokens, params.temperature, params.top_p, params.top_k) == (9, 1, 1, -1)
    assert params.stop == ["a", "b", "<|im_end|>", "<|endoftext|>"]


async def test_n_choices(client: AsyncOpenAI) -> None:
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
async def test_stops_end_the_content_and_the_tokens(
    client: AsyncOpenAI, script: Script, text: str, stop: Any, content: str, kept: str
) -> None:
    script.text, script.stop_reason = text, "length"
    choice = (await ask(client, stop=stop)).choices[0]
    assert (choice.message.content, choice.finish_reason) == (content, "stop")
    assert choice.token_ids == script.ids(kept)
    assert len(choice.logprobs.content) == len(choice.token_ids)


async def test_a_sample_that_was_cut_says_so(client: AsyncOpenAI, script: Script) -> None:
    script.text, script.stop_reason = "hel", "length"
    choice = (await ask(client)).choices[0]
    assert (choice.message.content, choice.finish_reason) == ("hel", "length")
    assert choice.token_ids == script.ids("hel")


async def test_half_a_character_has_no_bytes(client: AsyncOpenAI, script: Script) -> None:
    script.text = "é<|im_end|>"
    content = (await ask(client)).choices[0].logprobs.content
    assert [token.bytes for token in content] == [None, None, list(b"<|im_end|>")]


async def test_tool_calls_come_out(client: AsyncOpenAI, script: Script) -> None:
    script.text = f"Wait.\n{CALL}\n{CALL}<|im_end|>"
    choice = (await ask(client, tools=TOOLS)).choices[0]
    assert (choice.message.content, choice.finish_reason) == ("Wait.", "tool_calls")
    calls = choice.message.tool_calls
    assert [(call.function.name, json.loads(call.function.arguments)) for call in calls] == [
        ("search", {"query": "é"})
    ] * 2
    assert calls[0].id != calls[1].id
    assert choice.token_ids == script.ids(script.text)
    assert "search" in script.tokenizer.decode(choice.prompt_token_ids)


async def test_a_tool_calling_turn_extends_the_tokens_before_it(
    client: AsyncOpenAI, script: Script
) -> None:
    script.text = f"Wait.\n{CALL}<|im_end|>"
    first = (await ask(client, tools=TOOLS)).choices[0]
    messages = [*USER, first.message, {"role": "tool", "tool_call_id": "x", "content": "5"}]
    second = (await ask(client, tools=TOOLS, messages=messages)).choices[0]
    so_far = first.prompt_token_ids + first.token_ids
    assert second.prompt_token_ids[: len(so_far)] == so_far


async def test_without_tools_a_call_is_content(client: AsyncOpenAI, script: Script) -> None:
    script.text = f"{CALL}<|im_end|>"
    for fields in ({}, {"tools": TOOLS, "tool_choice": "none"}):
        choice = (await ask(client, **fields)).choices[0]
        assert (choice.message.content, choice.finish_reason) == (CALL, "stop")
        assert "search" not in script.tokenizer.decode(choice.prompt_token_ids)


async def test_malformed_calls_are_content(client: AsyncOpenAI, script: Script) -> None:
    script.text = "<tool_call>{oops</tool_call><|im_end|>"
    choice = (await ask(client, tools=TOOLS)).choices[0]
    assert choice.message.content == "<tool_call>{oops</tool_call>"
    assert (choice.message.tool_calls, choice.finish_reason) == (None, "stop")


async def test_streaming(client: AsyncOpenAI, script: Script) -> None:
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
        assert own[-1].prompt_token_ids == script.asked[0]["prompt"]
        assert len(
            [t for choice in own if choice.logprobs for t in choice.logprobs.content]
        ) == len(own[-1].token_ids)


async def test_the_clients_own_accumulation_of_a_stream(
    client: AsyncOpenAI, script: Script
) -> None:
    async with client.chat.completions.stream(model="agent", messages=USER) as stream:
        completion = await stream.get_final_completion()
    assert completion.choices[0].message.content == "hello"
    assert completion.choices[0].finish_reason == "stop"


async def test_an_error_in_a_stream_reaches_the_client(client: AsyncOpenAI, script: Script) -> None:
    script.error = EngineError("out of memory")
    stream = await ask(client, stream=True)
    with pytest.raises(openai.APIError, match="out of memory"):
        [chunk async for chunk in stream]


async def test_models(client: AsyncOpenAI, script: Script) -> None:
    names = [model.id async for model in client.models.list()]
    assert names == ["org/base", "agent@0", "agent", "agent@1"]
    assert (await client.models.retrieve("org/base")).id == "org/base"
    with pytest.raises(openai.NotFoundError, match="there is no model 'agent@7'"):
        await client.models.retrieve("agent@7")
    for name in ("agent", "agent@1", "agent@0", "org/base"):
        assert (await ask(client, model=name)).model == name
    assert script.opened == [
        "tinker://run/sampler_weights/0001",
        "tinker://run/sampler_weights/0000",
        None,
    ]


async def test_concurrent_requests_share_a_sampler(client: AsyncOpenAI, script: Script) -> None:
    await asyncio.gather(*(ask(client) for _ in range(64)))
    assert (len(script.asked), len(script.opened)) == (64, 1)


async def test_a_sampler_that_failed_to_open_is_opened_again(
    client: AsyncOpenAI, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(path: str | None) -> Script:
        raise EngineError("not yet")

    with monkeypatch.context() as patch:
        patch.setattr(Samplers, "_open", lambda self, path: broken(path))
        with pytest.raises(openai.InternalServerError, match="not yet"):
            await ask(client)
    assert (await ask(client)).choices[0].message.content == "hello"


async def test_a_key_is_demanded(server: OpenAIServer) -> None:
    url = f"http://{server.host}:{server.port}/v1"
    async with AsyncOpenAI(base_url=url, api_key="wrong", max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError) as caught:
            await stranger.models.list()
        with pytest.raises(openai.AuthenticationError):
            await ask(stranger)
        health = await stranger.get("/../health", cast_to=object)
    assert caught.value.code == "invalid_api_key"
    assert health == {"status": "ok"}


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
    ({"response_format": {"type": "json_object"}}, "response_format: Extra inputs"),
    ({"extra_body": {"stream_options": {}}}, "stream"),
    ({"extra_body": {"chat_template_kwargs": {"tokenize": 1}}}, "cannot render"),
]


@pytest.mark.parametrize(("fields", "problem"), BAD_REQUESTS)
async def test_what_cannot_be_honoured_is_refused(
    client: AsyncOpenAI, fields: dict[str, Any], problem: str
) -> None:
    with pytest.raises(openai.APIStatusError, match=problem) as caught:
        await ask(client, **fields)
    assert caught.value.status_code == (404 if "model" in fields else 400)
    assert isinstance(caught.value.body, dict)
    assert set(caught.value.body) == {"message", "type", "param", "code"}


async def test_neutral_values_of_what_is_not_supported_pass(client: AsyncOpenAI) -> None:
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
async def test_failures_of_the_engine(
    client: AsyncOpenAI, script: Script, error: Exception, status: int
) -> None:
    script.error = error
    with pytest.raises(openai.APIStatusError, match="x") as caught:
        await ask(client)
    assert caught.value.status_code == status


async def test_unknown_paths_and_bodies_have_the_same_shape(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        await client.post("/completions", cast_to=object, body={})
    assert missing.value.body["type"] == "not_found_error"  # type: ignore[index]
    with pytest.raises(openai.BadRequestError) as damaged:
        await client.post("/chat/completions", cast_to=object, content=b"{")
    assert damaged.value.body["type"] == "invalid_request_error"  # type: ignore[index]


async def test_a_port_in_use(server: OpenAIServer, script: Script) -> None:
    samplers = Samplers("agent", "org/base", script.open)
    second = OpenAIServer(
        samplers, ChatTemplate(script.tokenizer), max_context_length=600, port=server.port
    )
    with pytest.raises(PortInUseError, match=f"port {server.port}"):
        await second.start()
    await second.stop()


async def test_a_withdrawn_step_is_gone(script: Script) -> None:
    samplers = Samplers("agent", "org/base", script.open)
    samplers.publish(0, "a")
    samplers.publish(1, "b")
    model = samplers.find("agent@0")
    assert model is not None
    await samplers.sampler(model)
    samplers.withdraw(0)
    assert samplers.find("agent@0") is None
    assert [each.name for each in samplers.models()] == ["org/base", "agent", "agent@1"]
