"""Requests that make no sense are the client's fault (4xx), however odd they are."""

import copy
import json
import logging
import os
import random
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
from transformers import PreTrainedTokenizerFast

from art.chat.template import ChatTemplate
from art.endpoint.served_models import ServedModels
from art.endpoint.server import OpenAIServer
from tests.light.conftest import TEMPLATES
from tests.light.endpoint.scripted import Script

NUM_REQUESTS = int(os.environ.get("ART_HOSTILE_REQUESTS", 300))
SURROGATE = "\ud800"

CALLS = (
    '<tool_call>\n{"name": "search", "arguments": {"query": "5"}}\n</tool_call>'
    "<tool_call>\n<function=search>\n<parameter=query>\n5\n</parameter>\n</function>\n</tool_call>"
    "<|im_end|>"
)
SENSIBLE: dict[str, Any] = {
    "model": "agent",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "hi"}], "name": "me"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "1",
                    "type": "function",
                    "function": {"name": "search", "arguments": '{"query": "x"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "1", "content": "5"},
    ],
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "search",
                "description": "Search.",
                "parameters": {
                    "type": "object",
                    "properties": {
                        "query": {"type": "string", "enum": ["a"], "anyOf": [{"type": "null"}]}
                    },
                },
            },
        }
    ],
    "tool_choice": "auto",
    "n": 1,
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 5,
    "max_tokens": 5,
    "stop": ["x"],
    "seed": 1,
    "logprobs": False,
    "stream": False,
    "chat_template_kwargs": {"enable_thinking": False},
    "user": "u",
    "metadata": {"a": "b"},
}


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


class Raw(str):
    """JSON text that stands for a value that Python would not write."""


ODD_VALUES: list[Any] = [
    None, True, 0, -1, 1.5, 1e308, 1e-320, -0.0, 2**31, 2**63, 2**64, 10**400, "", "x", "\0", "🙂",
    SURROGATE, '{"a": "\\ud800"}', nested(300), nested(100_000), [], {}, [[]], [{}], [None],
    {"": ""}, {"type": 5}, {"type": [5, {}]}, {"anyOf": 5}, {"enum": 5}, {"a": {"b": [SURROGATE]}},
    ["system"], {"role": "user"}, "tool", "developer", "function", "a" * 100_000, ["y"] * 50,
    {str(number): number for number in range(300)}, float("nan"), float("inf"),
    Raw(nested(150)), Raw(nested(5000)), Raw('"\\ud800"'), Raw("1e999"), Raw('{"a":1,"a":2}'),
    Raw("{"), Raw("NaN"), Raw("\ufeff1"),
]  # fmt: skip
ODD_KEYS = [
    "", "role", "content", "tool_calls", "tools", "messages", "conversation", "chat_template",
    "tokenize", "add_generation_prompt", "return_dict", "return_tensors", "padding", "max_length",
    "truncation", "continue_final_message", "tokenizer_kwargs", "documents", "bos_token",
    "eos_token", "raise_exception", "range", "loop", "self", "arguments", "name", "type",
    "response_format", "__class__", SURROGATE,
]  # fmt: skip


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container with each of its keys, all the way down."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from places(value[key])


def mutated(rng: random.Random) -> bytes:
    """A request with one to three odd changes."""
    request = copy.deepcopy(SENSIBLE)
    if rng.random() < 0.5:  # some templates know no tools
        del request["tools"], request["messages"][2:]
    raw: dict[str, str] = {}
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        container, key = rng.choice(list(places(request)))
        odd = copy.deepcopy(rng.choice(ODD_VALUES))
        if isinstance(odd, Raw):
            mark = f"raw-{len(raw)}-mark"
            raw[mark], odd = odd, mark
        match rng.randrange(4):
            case 0 if isinstance(container, dict):
                del container[key]
            case 1 if isinstance(container, dict):
                container[rng.choice(ODD_KEYS)] = odd
            case 2 if isinstance(container, list):
                container.append(odd)
            case _:
                container[key] = odd
    text = json.dumps(request)
    for mark, value in raw.items():
        text = text.replace(f'"{mark}"', value)
    data = text.encode()
    if rng.random() < 0.03:
        data = data[: rng.randrange(len(data))]
    if rng.random() < 0.03:
        position = rng.randrange(len(data) or 1)
        data = data[:position] + rng.randbytes(3) + data[position:]
    return data


Post = Callable[[bytes], Any]


@pytest.fixture(params=sorted(TEMPLATES))
async def post(
    request: pytest.FixtureRequest, make_tokenizer: Callable[[str], PreTrainedTokenizerFast]
) -> AsyncIterator[Post]:
    """Posts a body to an endpoint of one chat template, whose samples call tools."""
    script = Script(make_tokenizer(request.param), CALLS)
    models = ServedModels("agent", "org/base", script.open)
    models.publish(0, "tinker://run/sampler_weights/0000")
    server = OpenAIServer(models, ChatTemplate(script.tokenizer), max_context_length=20_000)
    await server.start()
    headers = {"authorization": f"Bearer {server.api_key}"}
    async with httpx.AsyncClient(headers=headers, timeout=60) as client:

        async def send(body: bytes) -> httpx.Response:
            return await client.post(f"{server.base_url}/chat/completions", content=body)

        yield send
    await server.stop()


async def test_no_request_is_a_fault_of_the_server(
    post: Post, caplog: pytest.LogCaptureFixture
) -> None:
    rng = random.Random(13)
    statuses: dict[int, int] = {}
    for _ in range(NUM_REQUESTS):
        body = mutated(rng)
        response = await post(body)
        assert response.status_code < 500, (response.text[:500], body[:2000])
        if response.status_code != 200:
            error = response.json()["error"]
            assert error["message"]
            assert len(response.content) < 5000, body[:2000]
        elif b'"stream": true' in body:
            assert "server_error" not in response.text, (response.text[-500:], body[:2000])
        statuses[response.status_code] = statuses.get(response.status_code, 0) + 1
    assert statuses[200] > NUM_REQUESTS / 20
    assert statuses[400] > NUM_REQUESTS / 5
    assert [each for each in caplog.records if each.levelno >= logging.ERROR] == []
