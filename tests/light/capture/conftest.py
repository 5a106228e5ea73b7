"""A registered model whose endpoint answers by a script that depends on what it is asked."""

import re
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import pytest
from transformers import PreTrainedTokenizerFast

import art
from art.chat.template import ChatTemplate
from art.endpoint.served_models import ServedModels
from art.endpoint.server import OpenAIServer
from art.endpoint.types import SampledTokens, SamplingOptions

_TURN = re.compile(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>", re.DOTALL)


@dataclass
class Echo:
    """Says ``echo 2: hello`` to a user's second message ``hello``; calls a tool to ``call NAME``.

    The samples of one request differ in their first word.
    """

    tokenizer: PreTrainedTokenizerFast
    sampled: dict[tuple[int, ...], list[list[int]]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    async def open(self, path: str | None) -> "Echo":
        return self

    async def complete(
        self, prompt_token_ids: Sequence[int], options: SamplingOptions
    ) -> list[SampledTokens]:
        prompt = self.tokenizer.decode(list(prompt_token_ids))
        assert isinstance(prompt, str)
        turns = _TURN.findall(prompt)
        said = [text for role, text in turns if role in ("user", "tool")]
        samples = [self._ids(_answer(number, said)) for number in range(options.num_samples)]
        with self.lock:
            self.sampled.setdefault(tuple(prompt_token_ids), []).extend(samples)
        return [SampledTokens(ids, [-len(ids) / 8] * len(ids), "stop") for ids in samples]

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))


def _answer(number: int, said: list[str]) -> str:
    last = said[-1].strip()
    if last.startswith("call "):
        call = f'{{"name": "{last[5:]}", "arguments": {{"n": {len(said)}}}}}'
        return f"<tool_call>\n{call}\n</tool_call><|im_end|>"
    return f"{'echo' if number == 0 else f'other{number}'} {len(said)}: {last}<|im_end|>"


@pytest.fixture
def echo(make_tokenizer: Callable[[str], PreTrainedTokenizerFast]) -> Echo:
    return Echo(make_tokenizer("hermes"))


@pytest.fixture
async def server(echo: Echo) -> AsyncIterator[OpenAIServer]:
    models = ServedModels("agent", "org/base", echo.open)
    models.publish(0, "tinker://run/sampler_weights/0000")
    server = OpenAIServer(models, ChatTemplate(echo.tokenizer), max_context_length=4000)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def model(server: OpenAIServer) -> AsyncIterator[art.TrainableModel[None]]:
    model = art.TrainableModel[None](name="agent", project="p", base_model="org/base")
    model.inference_base_url, model.inference_api_key = server.base_url, server.api_key
    yield model
    await model.openai_client().close()
