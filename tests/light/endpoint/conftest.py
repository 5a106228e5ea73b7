"""An endpoint whose samples are scripted, and the official client of it."""

import threading
from collections.abc import AsyncIterator, Callable

import pytest
from openai import AsyncOpenAI
from transformers import PreTrainedTokenizerFast

from art.chat.template import ChatTemplate
from art.endpoint.served_models import ServedModels
from art.endpoint.server import OpenAIServer
from tests.light.endpoint.scripted import Script


@pytest.fixture
def script(make_tokenizer: Callable[[str], PreTrainedTokenizerFast]) -> Script:
    return Script(make_tokenizer("hermes"))


@pytest.fixture
async def server(script: Script) -> AsyncIterator[OpenAIServer]:
    """A server of the steps 0 and 1, with a context of 600 tokens."""
    models = ServedModels("agent", "org/base", script.open)
    models.publish(0, "tinker://run/sampler_weights/0000")
    models.publish(1, "tinker://run/sampler_weights/0001")
    server = OpenAIServer(models, ChatTemplate(script.tokenizer), max_context_length=600)
    await server.start()
    yield server
    await server.stop()
    assert not any(thread.name == "art-openai-server" for thread in threading.enumerate())


@pytest.fixture
async def client(server: OpenAIServer) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(
        base_url=server.base_url, api_key=server.api_key, max_retries=0
    ) as client:
        yield client
