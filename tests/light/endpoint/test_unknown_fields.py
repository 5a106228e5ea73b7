"""Fields that the endpoint does not know: named in a header, or refused by a strict endpoint."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from art.chat.template import ChatTemplate
from art.endpoint.ignored_fields import HEADER
from art.endpoint.served_models import ServedModels
from art.endpoint.server import OpenAIServer
from tests.light.endpoint.scripted import Script

BODY: dict[str, Any] = {"model": "agent", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
async def strict_server(script: Script) -> AsyncIterator[OpenAIServer]:
    models = ServedModels("agent", "org/base", script.open)
    models.publish(0, "tinker://run/sampler_weights/0000")
    template = ChatTemplate(script.tokenizer)
    server = OpenAIServer(models, template, max_context_length=600, strict=True)
    await server.start()
    yield server
    await server.stop()


async def post(server: OpenAIServer, **fields: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {server.api_key}"}
    async with httpx.AsyncClient(headers=headers) as http:
        return await http.post(f"{server.base_url}/chat/completions", json={**BODY, **fields})


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_unknown_fields_are_ignored_and_named_in_a_header(
    server: OpenAIServer, stream: bool
) -> None:
    options = {"stream_options": {"include_usage": True, "speed": 1}} if stream else {}
    response = await post(server, zeta=1, alpha=[2], stream=stream, **options)
    assert response.status_code == 200
    named = ["alpha", *(["stream_options.speed"] if stream else []), "zeta"]
    assert response.headers[HEADER] == ", ".join(named)


async def test_a_request_of_known_fields_has_no_such_header(server: OpenAIServer) -> None:
    assert HEADER not in (await post(server, temperature=0.5)).headers


async def test_a_name_cannot_break_the_header(server: OpenAIServer) -> None:
    response = await post(server, **{"a\r\nset-cookie: é": 1, "x" * 500: 2})
    assert response.headers[HEADER] == "a??set-cookie???, " + "x" * 60
    assert "set-cookie" not in response.headers


async def test_many_unknown_fields_do_not_make_a_large_header(server: OpenAIServer) -> None:
    response = await post(server, **{f"field-{number}": 1 for number in range(2000)})
    assert response.status_code == 200
    assert len(response.headers[HEADER].split(", ")) == 20


@pytest.mark.parametrize(
    ("fields", "named"),
    [({"zeta": 1}, "zeta"), ({"stream": True, "stream_options": {"a": 1}}, "stream_options.a")],
)
async def test_a_strict_endpoint_refuses_them_by_name(
    strict_server: OpenAIServer, fields: dict[str, Any], named: str
) -> None:
    response = await post(strict_server, **fields)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, named)
    assert error["code"] == "unknown_parameter"
    assert (await post(strict_server)).status_code == 200
