"""The endpoint's server: its models, its key, its port, and the shape of its errors."""

import asyncio
import threading
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from art.chat.template import ChatTemplate
from art.endpoint.served_models import ServedModels
from art.endpoint.server import OpenAIServer
from art.errors import ConfigurationError, EngineError, PortInUseError
from tests.light.endpoint.scripted import Script


async def ask(client: AsyncOpenAI, model: str = "agent") -> str | None:
    completion = await client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "hi"}]
    )
    assert completion.model == model
    return completion.choices[0].message.content


async def test_the_base_model_the_latest_step_and_every_step_are_listed(
    client: AsyncOpenAI,
) -> None:
    names = [model.id async for model in client.models.list()]
    assert names == ["org/base", "agent@0", "agent", "agent@1"]


async def test_a_model_is_retrieved_by_its_name(client: AsyncOpenAI) -> None:
    assert (await client.models.retrieve("org/base")).id == "org/base"
    with pytest.raises(openai.NotFoundError, match="there is no model 'agent@7'"):
        await client.models.retrieve("agent@7")


@pytest.mark.parametrize(
    ("name", "checkpoint"),
    [
        ("agent", "tinker://run/sampler_weights/0001"),
        ("agent@1", "tinker://run/sampler_weights/0001"),
        ("agent@0", "tinker://run/sampler_weights/0000"),
        ("org/base", None),
    ],
)
async def test_a_name_is_answered_from_its_checkpoint(
    client: AsyncOpenAI, script: Script, name: str, checkpoint: str | None
) -> None:
    await ask(client, name)
    assert script.opened == [checkpoint]


async def test_concurrent_requests_share_a_completer(client: AsyncOpenAI, script: Script) -> None:
    await asyncio.gather(*(ask(client) for _ in range(64)))
    assert (len(script.prompts), len(script.opened)) == (64, 1)


async def test_others_are_answered_while_a_long_prompt_is_read(
    client: AsyncOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, ending = threading.Event(), threading.Event()
    read = ChatTemplate.prompt_token_ids

    def read_slowly(self: ChatTemplate, *arguments: Any) -> list[int]:
        reading.set()
        assert ending.wait(timeout=20)
        return read(self, *arguments)

    monkeypatch.setattr(ChatTemplate, "prompt_token_ids", read_slowly)
    asking = asyncio.create_task(ask(client))
    assert await asyncio.to_thread(reading.wait, 20)
    assert [model.id async for model in client.models.list()]
    ending.set()
    assert await asking == "hello"


async def test_a_completer_that_failed_to_open_is_opened_again(script: Script) -> None:
    failures = [EngineError("not yet")]

    async def open_completer(path: str | None) -> Script:
        if failures:
            raise failures.pop()
        return await script.open(path)

    models = ServedModels("agent", "org/base", open_completer)
    (base,) = models.models()
    with pytest.raises(EngineError, match="not yet"):
        await models.completer(base)
    assert await models.completer(base) is script


async def test_one_callers_cancellation_leaves_the_completer_to_the_others(
    script: Script,
) -> None:
    models = ServedModels("agent", "org/base", script.open)
    (base,) = models.models()
    first, second = (asyncio.create_task(models.completer(base)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second is script
    assert first.cancelled()
    assert script.opened == [None]


async def test_a_withdrawn_step_is_not_served(script: Script) -> None:
    models = ServedModels("agent", "org/base", script.open)
    models.publish(0, "a")
    models.publish(1, "b")
    model = models.find("agent@0")
    assert model is not None
    await models.completer(model)
    models.withdraw(0)
    assert models.find("agent@0") is None
    assert [each.name for each in models.models()] == ["org/base", "agent", "agent@1"]


async def test_a_wrong_key_is_refused(server: OpenAIServer) -> None:
    async with AsyncOpenAI(base_url=server.base_url, api_key="wrong", max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError) as caught:
            await stranger.models.list()
        with pytest.raises(openai.AuthenticationError):
            await ask(stranger)
    assert caught.value.code == "invalid_api_key"


async def test_health_needs_no_key(server: OpenAIServer) -> None:
    async with AsyncOpenAI(base_url=server.base_url, api_key="wrong", max_retries=0) as stranger:
        assert await stranger.get("/../health", cast_to=object) == {"status": "ok"}


async def test_an_unknown_path_is_an_error_in_the_openai_shape(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        await client.post("/no-such-path", cast_to=object, body={})
    assert isinstance(missing.value.body, dict)
    assert missing.value.body["type"] == "not_found_error"


async def test_a_damaged_body_is_an_error_in_the_openai_shape(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as damaged:
        await client.post("/chat/completions", cast_to=object, content=b"{")
    assert isinstance(damaged.value.body, dict)
    assert damaged.value.body["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("host", "port", "error", "message"),
    [
        ("127.0.0.1", None, PortInUseError, "is taken by another process"),
        ("no.such.host.invalid", 0, ConfigurationError, "cannot listen on 'no.such.host.invalid'"),
    ],
)
async def test_an_address_that_cannot_be_listened_on_is_refused(
    server: OpenAIServer,
    script: Script,
    host: str,
    port: int | None,
    error: type[Exception],
    message: str,
) -> None:
    second = OpenAIServer(
        ServedModels("agent", "org/base", script.open),
        ChatTemplate(script.tokenizer),
        max_context_length=600,
        host=host,
        port=server.port if port is None else port,
    )
    with pytest.raises(error, match=message):
        await second.start()
    await second.stop()


async def test_a_server_on_all_addresses_has_a_base_url_that_this_machine_reaches(
    script: Script,
) -> None:
    server = OpenAIServer(
        ServedModels("agent", "org/base", script.open),
        ChatTemplate(script.tokenizer),
        max_context_length=600,
        host="0.0.0.0",
    )
    await server.start()
    try:
        assert server.base_url == f"http://127.0.0.1:{server.port}/v1"
        async with AsyncOpenAI(base_url=server.base_url, api_key=server.api_key) as client:
            assert await ask(client, "org/base") == "hello"
    finally:
        await server.stop()
