"""Sampling requests that have not ended, and the rows of a batch that answer them.

Shapes: P tokens of a prompt, N sampled tokens, K most likely tokens of a place, D hidden size.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from art.errors import ContextLengthError, InvalidRequestError
from art.executors.torch.language_model import LanguageModel
from art.executors.torch.prompt_scores import PromptScores, asks_of_prompt, score_prompt
from art.executors.torch.token_controls import TokenControls
from art.executors.types import (
    FloatArray,
    IntArray,
    SampledSequence,
    SampleRequest,
    SampleResult,
    SamplingParams,
    StopReason,
)
from art.formats.sampling_controls import NO_CONTROLS, check_controls

# Decoding may merge or drop characters at the start, so a stop string is looked for in a few
# tokens more than it can have.
_SPARE_STOP_TOKENS = 8


class RunningRequest:
    """A request from when it is submitted until it ends.

    Args:
        request_id: Its id.
        request: What :func:`check_request` accepted.
        language_model: What it is sampled from.

    Attributes:
        samples: A row of a batch for each sample that is wanted.
        outcome: The result, or the reason that there is none; ``None`` until then.
        cancelled: Whether nobody waits for it.
    """

    def __init__(
        self, request_id: str, request: SampleRequest, language_model: LanguageModel
    ) -> None:
        self.request_id = request_id
        self.request = request
        room = language_model.max_context_length - len(request.prompt)
        most = request.params.max_tokens
        # Each sample has a stream of random numbers of its own, whatever is sampled beside it.
        streams = np.random.SeedSequence(request.params.seed).spawn(request.num_samples)
        self.samples = [
            Sample(
                request=self,
                stream=np.random.Generator(np.random.Philox(stream)),
                max_tokens=room if most is None else min(room, most),
                controls=controls,
            )
            for stream, controls in zip(streams, _controls(request, language_model), strict=True)
        ]
        self.outcome: SampleResult | Exception | None = None
        self.cancelled = False
        self._stop_token_ids = frozenset(request.params.stop_token_ids)
        self._longest_stop = max((len(s.encode()) for s in request.params.stop_strings), default=0)
        self._prompt_scores: PromptScores | None = None

    @property
    def unfinished(self) -> bool:
        """True until it has an outcome or is cancelled: it still costs compute."""
        return self.outcome is None and not self.cancelled

    @property
    def wants_prompt(self) -> bool:
        """True while something of the prompt itself is asked for and not known yet."""
        return self._prompt_scores is None and asks_of_prompt(self.request)

    def fail(self, error: Exception) -> None:
        """End it without a result; its other rows are dropped before the next step."""
        self.outcome = error

    def fill_prompt(self, language_model: LanguageModel, hidden_PD: torch.Tensor) -> None:
        """Compute what it asks of the prompt itself, from the prompt's hidden states."""
        self._prompt_scores = score_prompt(self.request, language_model, hidden_PD)

    def note_token(self, sample: "Sample", language_model: LanguageModel) -> None:
        """End a sample that its newest token ends, and the request with the last of them."""
        if sample.controls is not None:
            sample.controls.note(sample.tokens[-1])
        if (
            sample.tokens[-1] in self._stop_token_ids
            or self._at_stop_string(sample, language_model)
            or (sample.controls is not None and sample.controls.is_complete)
        ):
            sample.stop_reason = "stop"
        elif len(sample.tokens) >= sample.max_tokens:
            sample.stop_reason = "length"
        if sample.stop_reason is not None:
            sample.controls = None  # a grammar's state is large
        if all(sample.stop_reason is not None for sample in self.samples):
            prompt = self._prompt_scores or PromptScores()
            self.outcome = SampleResult(
                sequences=[sample.result() for sample in self.samples],
                prompt_logprobs=prompt.prompt_logprobs,
                topk_prompt_logprobs=prompt.topk_prompt_logprobs,
                target_prompt_logprobs=prompt.target_prompt_logprobs,
                prompt_alternatives=prompt.prompt_alternatives,
            )

    def _at_stop_string(self, sample: "Sample", language_model: LanguageModel) -> bool:
        if not self._longest_stop:
            return False
        # A token is at least one byte, so no stop string ends in this token and starts earlier.
        tail = sample.tokens[-(self._longest_stop + _SPARE_STOP_TOKENS) :]
        text = language_model.tokenizer.decode(tail)
        return any(string in text for string in self.request.params.stop_strings)


@dataclass(slots=True, kw_only=True, eq=False)
class Sample:
    """One sample of a request: a row of a batch, waiting, running or ended.

    Attributes:
        request: The request that it is one of.
        stream: Its random numbers.
        max_tokens: The most tokens that it can have.
        controls: What changes its logits; ``None`` is nothing.
        tokens: The tokens so far.
        logprobs: The logprob of each.
        top_tokens: The most likely tokens at each place, int64 ``[K]``, where asked for.
        top_logprobs: Their logprobs, float32 ``[K]``.
        stop_reason: Why it ended; ``None`` while it goes on.
    """

    request: RunningRequest
    stream: np.random.Generator
    max_tokens: int
    controls: TokenControls | None
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top_tokens: list[IntArray] = field(default_factory=list)
    top_logprobs: list[FloatArray] = field(default_factory=list)
    stop_reason: StopReason | None = None

    @property
    def prompt(self) -> IntArray:
        """The prompt that it continues, int64 ``[P]``."""
        return self.request.request.prompt

    @property
    def params(self) -> SamplingParams:
        """The settings of its request."""
        return self.request.request.params

    @property
    def goes_on(self) -> bool:
        """True while it wants another token."""
        return self.stop_reason is None and self.request.unfinished

    def result(self) -> SampledSequence:
        """Make the sequence for the wire, once it has ended."""
        assert self.stop_reason is not None
        return SampledSequence(
            tokens=np.array(self.tokens, np.int64),
            logprobs=np.array(self.logprobs, np.float32),
            stop_reason=self.stop_reason,
            topk_logprobs=(
                (np.stack(self.top_tokens), np.stack(self.top_logprobs))
                if self.request.request.topk_logprobs
                else None
            ),
        )


def check_request(request: SampleRequest, language_model: LanguageModel) -> None:
    """Refuse a request that cannot be answered.

    Raises:
        InvalidRequestError: A token or a parameter cannot be used.
        ContextLengthError: The prompt leaves no room in the context.
    """
    language_model.check_tokens(request.prompt, "the prompt", InvalidRequestError)
    room = language_model.max_context_length
    if len(request.prompt) >= room:
        raise ContextLengthError(
            f"the prompt has {len(request.prompt)} tokens, which leaves no room to sample in a "
            f"context of {room}. Shorten the conversation."
        )
    params, vocab_size = request.params, language_model.vocab_size
    rules = {
        "num_samples must be 1 or more": request.num_samples >= 1,
        "max_tokens must be 1 or more": params.max_tokens is None or params.max_tokens >= 1,
        "temperature must be 0 or more and finite": 0 <= params.temperature < float("inf"),
        "top_k must be -1 (all) or 1 or more": params.top_k == -1 or params.top_k >= 1,
        "top_p must be above 0 and at most 1": 0 < params.top_p <= 1,
        "seed must be 0 or more": params.seed is None or params.seed >= 0,
        "stop strings must not be empty": all(params.stop_strings),
        "stop strings must be text, without lone surrogates": all(
            _is_text(string) for string in params.stop_strings
        ),
        f"topk_prompt_logprobs must be from 0 to {vocab_size}": (
            0 <= request.topk_prompt_logprobs <= vocab_size
        ),
        f"topk_sample_logprobs must be from 0 to {vocab_size}": (
            0 <= request.topk_logprobs <= vocab_size
        ),
        "prompt_alt_tokens_k must be 0 or more": request.prompt_alternatives >= 0,
    }
    for rule, kept in rules.items():
        if not kept:
            shown = replace(params, controls=NO_CONTROLS)
            raise InvalidRequestError(f"{rule}: {request.num_samples=}, {shown}")
    if request.target_prompt_tokens is not None:
        _, targets = request.target_prompt_tokens
        language_model.check_tokens(targets, "target_prompt_logprobs", InvalidRequestError)
    check_controls(params.controls)
    for token, _ in params.controls.logit_bias:
        if token >= vocab_size:
            raise InvalidRequestError(
                f"logit_bias has token id {token}, outside the vocabulary of {vocab_size}"
            )


def _controls(
    request: SampleRequest, language_model: LanguageModel
) -> Iterator[TokenControls | None]:
    """Make the controls of each sample.

    Raises:
        InvalidRequestError: The grammar cannot be compiled.
    """
    controls = request.params.controls
    # ``min_p`` depends on nothing that was sampled; :func:`choose_tokens` applies it.
    if not set(controls.changed()) - {"min_p"}:
        yield from itertools.repeat(None, request.num_samples)
        return
    grammar = None
    if controls.grammar is not None:
        grammar = language_model.grammars.compile(controls.grammar, request.params.stop_token_ids)
    for _ in range(request.num_samples):
        yield TokenControls(controls, request.prompt, grammar, language_model.device)


def _is_text(string: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in string)
