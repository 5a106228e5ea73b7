"""A stranger is refused before a body is read; whoever has the key can send one within bounds."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from art.endpoint.body import MAX_BODY_BYTES
from art.endpoint.server import OpenAIServer

PATH = "/v1/chat/completions"
BODY = json.dumps({"model": "agent", "messages": [{"role": "user", "content": "hi"}]}).encode()


async def answer_to_a_head(server: OpenAIServer, **headers: str) -> tuple[int, Any]:
    """The answer to a request that promises a body and never sends a byte of it."""
    sent = {"host": f"127.0.0.1:{server.port}", "content-length": "1000", **headers}
    lines = [f"POST {PATH} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items())]
    reader, writer = await asyncio.open_connection(server.host, server.port)
    try:
        writer.write("\r\n".join([*lines, "", ""]).encode())
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), timeout=5)
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        body = json.loads(await asyncio.wait_for(reader.readexactly(length), timeout=5))
        return int(head.split()[1]), body["error"]
    finally:
        writer.close()


async def test_a_stranger_is_refused_before_the_body_comes(server: OpenAIServer) -> None:
    status, error = await answer_to_a_head(server, authorization="Bearer wrong")
    assert (status, error["type"], error["code"]) == (
        401,
        "authentication_error",
        "invalid_api_key",
    )


@pytest.mark.parametrize(
    "headers", [{"origin": "https://evil.example"}, {"host": "evil.example:80"}]
)
async def test_a_page_of_another_site_is_refused_though_it_has_the_key(
    server: OpenAIServer, headers: dict[str, str]
) -> None:
    key = f"Bearer {server.api_key}"
    status, error = await answer_to_a_head(server, authorization=key, **headers)
    assert (status, error["type"], error["code"]) == (403, "permission_error", "foreign_origin")


async def test_a_page_of_another_site_learns_nothing_of_rollouts(server: OpenAIServer) -> None:
    status, error = await answer_to_a_head(
        server, **{"x-art-rollout": "guessed", "origin": "https://evil.example"}
    )
    assert (status, error["code"]) == (403, "foreign_origin")
    status, error = await answer_to_a_head(server, **{"x-art-rollout": "guessed"})
    assert (status, error["code"]) == (404, "rollout_not_found")


async def test_a_body_that_promises_to_be_too_large_is_refused_before_it_comes(
    server: OpenAIServer,
) -> None:
    status, error = await answer_to_a_head(
        server,
        authorization=f"Bearer {server.api_key}",
        **{"content-length": str(MAX_BODY_BYTES + 1)},
    )
    assert (status, error["code"]) == (413, "request_too_large")


async def test_a_body_without_a_length_is_refused_once_it_is_too_large(
    server: OpenAIServer,
) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(3 * MAX_BODY_BYTES >> 20):
            yield b" " * (1 << 20)

    async with httpx.AsyncClient(headers={"authorization": f"Bearer {server.api_key}"}) as client:
        url = f"{server.base_url}/chat/completions"
        response = await client.post(url, content=endless())
        assert response.status_code == 413
        assert response.json()["error"]["code"] == "request_too_large"
        assert (await client.post(url, content=BODY)).status_code == 200


async def test_a_large_body_with_the_key_is_answered(server: OpenAIServer) -> None:
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {server.api_key}"}) as client:
        padded = BODY + b" " * (MAX_BODY_BYTES - len(BODY))
        response = await client.post(f"{server.base_url}/chat/completions", content=padded)
        assert response.status_code == 200


@pytest.mark.parametrize(
    ("path", "content", "status", "text"),
    [
        (PATH, b'{"messages": [' + b"[]," * 200_000 + b"[]]}", 400, "brackets and braces"),
        (f"{PATH}/", BODY, 404, ""),
    ],
    ids=["very many arrays", "a slash too many"],
)
async def test_a_request_that_no_client_sends_is_refused(
    server: OpenAIServer, path: str, content: bytes, status: int, text: str
) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as http:
        headers = {"authorization": f"Bearer {server.api_key}", "content-type": "application/json"}
        answer = await http.post(path, content=content, headers=headers)
    assert answer.status_code == status
    assert text in answer.json()["error"]["message"]
