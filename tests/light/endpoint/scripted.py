"""A completer whose samples are scripted, so that every way a sample can end is tried.

That real samples come through is for the tests with an engine.
"""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerFast

from art.endpoint.types import SampledTokens, SamplingOptions, StopReason


@dataclass
class Script:
    """A completer that says ``text``, and keeps a record of its calls."""

    tokenizer: PreTrainedTokenizerFast
    text: str = "hello<|im_end|>"
    stop_reason: StopReason = "stop"
    error: Exception | None = None
    never_ends: bool = False
    delay: float = 0
    alternatives: int | None = None
    prompts: list[list[int]] = field(default_factory=list)
    options: list[SamplingOptions] = field(default_factory=list)
    opened: list[str | None] = field(default_factory=list)
    sampling: threading.Event = field(default_factory=threading.Event)
    cancelled: threading.Event = field(default_factory=threading.Event)

    async def open(self, path: str | None) -> "Script":
        self.opened.append(path)
        await asyncio.sleep(0.01)
        return self

    async def complete(
        self, prompt_token_ids: Sequence[int], options: SamplingOptions
    ) -> list[SampledTokens]:
        self.prompts.append(list(prompt_token_ids))
        self.options.append(options)
        await asyncio.sleep(self.delay)
        if self.error is not None:
            raise self.error
        if self.never_ends:
            await self._wait_for_cancellation()
        token_ids = self.ids(self.text)
        logprobs = [-i / 8 for i in range(1, len(token_ids) + 1)]
        top_logprobs = None
        if self.alternatives is not None:
            likeliest = [(token_id, -1.0) for token_id in range(self.alternatives)]
            top_logprobs = [likeliest] * len(token_ids)
        sample = SampledTokens(token_ids, logprobs, self.stop_reason, top_logprobs)
        return [sample] * options.num_samples

    async def _wait_for_cancellation(self) -> None:
        self.sampling.set()
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    def ids(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def token_id(self, token: str) -> int:
        token_id = self.tokenizer.convert_tokens_to_ids(token)
        assert isinstance(token_id, int)
        return token_id

    def decode(self, token_ids: list[int]) -> str:
        text = self.tokenizer.decode(token_ids)
        assert isinstance(text, str)
        return text
