"""The OpenAI-compatible endpoint in a process of its own: ``python -m …endpoint_server MODEL``.

``MODEL`` is a folder with a tokenizer. The endpoint, its chat template and its event loop are real;
the samples are scripted. It says ``{"event": "ready", "pid": …, "base_url": …, "api_key": …}`` and
ends with its standard input.
"""

import asyncio
import json
import logging
import os
import sys
from collections.abc import Sequence

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from art.chat.template import ChatTemplate
from art.endpoint.served_models import ServedModels
from art.endpoint.server import OpenAIServer
from art.endpoint.types import SampledTokens, SamplingOptions
from tests.light.conftest import HERMES_TEMPLATE

_TEXT = 'yes <tool_call>\n{"name": "search", "arguments": {"q": "é"}}\n</tool_call><|im_end|>'


class RepeatingCompleter:
    """Says the same to every prompt.

    Args:
        tokenizer: Encodes it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._token_ids = list(tokenizer.encode(_TEXT, add_special_tokens=False))

    async def complete(
        self, prompt_token_ids: Sequence[int], options: SamplingOptions
    ) -> list[SampledTokens]:
        logprobs = [-1.0] * len(self._token_ids)
        return [SampledTokens(self._token_ids, logprobs, "stop")] * options.num_samples


async def _main(folder: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    completer = RepeatingCompleter(tokenizer)

    async def open_completer(path: str | None) -> RepeatingCompleter:
        return completer

    models = ServedModels("agent", "org/base", open_completer)
    models.publish(0, "tinker://run/sampler_weights/0000")
    template = ChatTemplate(tokenizer, template=HERMES_TEMPLATE)
    server = OpenAIServer(models, template, max_context_length=512)
    await server.start()
    ready = {
        "event": "ready",
        "pid": os.getpid(),
        "base_url": server.base_url.removesuffix("/v1"),
        "api_key": server.api_key,
    }
    sys.stdout.write(json.dumps(ready) + "\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    os._exit(0)


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(name)s: %(message)s")
    asyncio.run(_main(sys.argv[1]))
