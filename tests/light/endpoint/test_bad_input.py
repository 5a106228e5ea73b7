"""Bad input in every dialect: an error of its own shape, and no work that nobody waits for."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from art.endpoint import streams
from art.endpoint.body import MAX_BODY_BYTES
from art.endpoint.server import OpenAIServer
from art.errors import InvalidRequestError
from tests.light.endpoint.scripted import Script

Json = dict[str, Any]


@dataclass(frozen=True)
class Spoken:
    """One dialect, as a client speaks it."""

    path: str
    body: Json
    # Bodies with a text as their prompt, and with an image in it.
    with_text: Callable[[str], Json]
    with_image: Json | None
    # A tool without a schema where the dialect has one, and a schema that the text must follow.
    bad_tool: Json | None
    with_schema: Callable[[Json], Json] | None
    max_tokens: Callable[[int], Json]
    errors: str = "openai"

    def error(self, response: httpx.Response) -> tuple[str, str]:
        """The type and the message of an error, whose shape is checked."""
        body = response.json()
        if self.errors == "anthropic":
            assert body["type"] == "error"
            assert set(body["error"]) == {"type", "message"}
        else:
            assert set(body) == {"error"}
            assert set(body["error"]) == {"type", "message", "param", "code"}
        if self.errors == "vllm":
            assert body["error"]["code"] == response.status_code
        return body["error"]["type"], body["error"]["message"]


def user(content: Any) -> list[Json]:
    return [{"role": "user", "content": content}]


DIALECTS = {
    "chat": Spoken(
        "/v1/chat/completions",
        {"model": "agent", "messages": user("hi")},
        lambda text: {"messages": user(text)},
        {"messages": user([{"type": "image_url", "image_url": {"url": "data:"}}])},
        {"tools": [{"type": "function", "function": {"parameters": {}}}]},
        lambda schema: {
            "response_format": {"type": "json_schema", "json_schema": {"schema": schema}}
        },
        lambda number: {"max_tokens": number},
    ),
    "completions": Spoken(
        "/v1/completions",
        {"model": "agent", "prompt": "hi"},
        lambda text: {"prompt": text},
        {"prompt": [{"type": "image_url"}]},
        None,
        lambda schema: {
            "response_format": {"type": "json_schema", "json_schema": {"schema": schema}}
        },
        lambda number: {"max_tokens": number},
    ),
    "responses": Spoken(
        "/v1/responses",
        {"model": "agent", "input": "hi"},
        lambda text: {"input": text},
        {"input": user([{"type": "input_image", "image_url": "data:"}])},
        {"tools": [{"type": "function", "parameters": {}}]},
        lambda schema: {"text": {"format": {"type": "json_schema", "name": "x", "schema": schema}}},
        lambda number: {"max_output_tokens": number},
    ),
    "anthropic": Spoken(
        "/v1/messages",
        {"model": "agent", "messages": user("hi"), "max_tokens": 9},
        lambda text: {"messages": user(text)},
        {"messages": user([{"type": "image", "source": {"type": "base64"}}])},
        {"tools": [{"name": "search"}]},
        lambda schema: {"output_config": {"format": {"type": "json_schema", "schema": schema}}},
        lambda number: {"max_tokens": number},
        errors="anthropic",
    ),
    "vllm": Spoken(
        "/inference/v1/generate",
        {"model": "agent", "token_ids": [1], "sampling_params": {}},
        lambda text: {"token_ids": [5] * len(text)},
        {"content_parts": [{"type": "image_url"}]},
        None,
        lambda schema: {"sampling_params": {"structured_outputs": {"json": schema}}},
        lambda number: {"sampling_params": {"max_tokens": number}},
        errors="vllm",
    ),
}
SPOKEN = [pytest.param(each, id=name) for name, each in DIALECTS.items()]
every_dialect = pytest.mark.parametrize("spoken", SPOKEN)


@pytest.fixture
async def http(server: OpenAIServer) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {server.api_key}"}
    base_url = f"http://127.0.0.1:{server.port}"
    async with httpx.AsyncClient(base_url=base_url, headers=headers) as http:
        yield http


async def send(http: httpx.AsyncClient, spoken: Spoken, **fields: Any) -> httpx.Response:
    return await http.post(spoken.path, json={**spoken.body, **fields})


@every_dialect
async def test_a_sensible_request_is_answered(http: httpx.AsyncClient, spoken: Spoken) -> None:
    assert (await send(http, spoken)).status_code == 200


@every_dialect
@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"model": "\\ud800"}', b"[" * 5000],
    ids=["empty", "cut", "list", "null", "text", "no UTF-8", "half a pair", "deep"],
)
async def test_a_malformed_body_is_a_400(
    http: httpx.AsyncClient, spoken: Spoken, content: bytes
) -> None:
    response = await http.post(spoken.path, content=content)
    assert (response.status_code, spoken.error(response)[0]) == (400, "invalid_request_error")


@every_dialect
async def test_a_body_that_is_too_large_is_a_413(http: httpx.AsyncClient, spoken: Spoken) -> None:
    response = await http.post(spoken.path, content=b" " * (MAX_BODY_BYTES + 1))
    assert response.status_code == 413
    assert "over 16777216 bytes" in spoken.error(response)[1]


@every_dialect
@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": "Bearer wrong"}, {"x-api-key": "wrong"}],
    ids=["none", "bearer", "x-api-key"],
)
async def test_a_wrong_key_is_a_401(
    server: OpenAIServer, script: Script, spoken: Spoken, headers: dict[str, str]
) -> None:
    url = f"http://127.0.0.1:{server.port}{spoken.path}"
    async with httpx.AsyncClient() as stranger:
        response = await stranger.post(url, json=spoken.body, headers=headers)
    assert (response.status_code, spoken.error(response)[0]) == (401, "authentication_error")
    assert script.prompts == []


@every_dialect
async def test_either_header_brings_the_key(server: OpenAIServer, spoken: Spoken) -> None:
    url = f"http://127.0.0.1:{server.port}{spoken.path}"
    async with httpx.AsyncClient() as client:
        headers = {"x-api-key": server.api_key}
        assert (await client.post(url, json=spoken.body, headers=headers)).status_code == 200


@every_dialect
async def test_an_unknown_model_is_a_404_that_names_those_there_are(
    http: httpx.AsyncClient, spoken: Spoken
) -> None:
    response = await send(http, spoken, model="other")
    kind, message = spoken.error(response)
    assert (response.status_code, kind) == (404, "not_found_error")
    assert "there are 'org/base', 'agent@0', 'agent', 'agent@1'" in message


@every_dialect
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_a_context_that_overflows_is_a_400_with_the_numbers(
    http: httpx.AsyncClient, script: Script, spoken: Spoken, stream: bool
) -> None:
    fields = {**spoken.with_text("x" * 700), **spoken.max_tokens(20)}
    response = await send(http, spoken, **fields, stream=stream)
    message = spoken.error(response)[1]
    assert response.status_code == 400
    assert "20 more are to be sampled, but the model's context is 600" in message
    assert script.prompts == []


@every_dialect
async def test_an_image_is_a_400(http: httpx.AsyncClient, spoken: Spoken) -> None:
    response = await send(http, spoken, **(spoken.with_image or {}))
    assert (response.status_code, spoken.error(response)[0]) == (400, "invalid_request_error")


@pytest.mark.parametrize("spoken", [DIALECTS[name] for name in ("chat", "responses", "anthropic")])
async def test_a_tool_that_is_not_whole_is_a_400(http: httpx.AsyncClient, spoken: Spoken) -> None:
    response = await send(http, spoken, **(spoken.bad_tool or {}))
    assert response.status_code == 400
    assert "tools" in spoken.error(response)[1]


@every_dialect
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_a_schema_that_the_sampler_can_make_no_grammar_of_is_a_400(
    http: httpx.AsyncClient, script: Script, spoken: Spoken, stream: bool
) -> None:
    script.error = InvalidRequestError("the grammar cannot be compiled: Invalid type: odd")
    assert spoken.with_schema is not None
    response = await send(http, spoken, **spoken.with_schema({"type": "odd"}), stream=stream)
    kind, message = spoken.error(response)
    assert (response.status_code, kind) == (400, "invalid_request_error")
    assert "Invalid type: odd" in message
    assert '%json {"type": "odd"' in (script.options[0].controls.grammar or "")


@every_dialect
@pytest.mark.parametrize("wait", [5.0, 0.01], ids=["before the head", "after the head"])
async def test_a_client_that_goes_while_it_is_sampled_for_cancels_the_sampling(
    http: httpx.AsyncClient,
    script: Script,
    spoken: Spoken,
    wait: float,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(streams, "HEAD_WAITS_S", wait)
    script.never_ends = True
    begun = asyncio.Event()

    async def read() -> None:
        async with http.stream("POST", spoken.path, json={**spoken.body, "stream": True}) as answer:
            begun.set()
            async for _ in answer.aiter_bytes():
                pass

    request = asyncio.create_task(read())
    assert await asyncio.to_thread(script.sampling.wait, 5)
    if wait < 1:
        await asyncio.wait_for(begun.wait(), 5)
    assert not script.cancelled.is_set()
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    assert await asyncio.to_thread(script.cancelled.wait, 5)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@every_dialect
async def test_a_long_sampling_keeps_its_connection_alive(
    http: httpx.AsyncClient, script: Script, spoken: Spoken, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "HEAD_WAITS_S", 0.01)
    monkeypatch.setattr(streams, "KEEP_ALIVE_S", 0.02)
    script.delay = 0.3
    response = await send(http, spoken, stream=True)
    assert response.text.count(": sampling\n\n") >= 2
    assert "error" not in json.dumps(
        [line for line in response.text.splitlines() if line.startswith("event: error")]
    )
    assert "hel" in response.text or str(script.ids("hello")[0]) in response.text
