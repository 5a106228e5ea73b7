"""Sampling many requests of one sampler as one batch.

Shapes: B rows (samples in flight), P tokens of a prompt, N sampled tokens, V vocabulary, K top.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import psutil
import torch

from art.errors import ContextLengthError, InvalidRequestError
from art.executors.torch.decoding import Decoder, EqualLengthDecoder, SharedPrefixDecoder
from art.executors.torch.language_model import LanguageModel
from art.executors.types import (
    FloatArray,
    IntArray,
    SampledSequence,
    SampleRequest,
    SampleResult,
    SamplingParams,
    StopReason,
)

# Decoding may merge or drop characters at the start, so a stop string is looked for in a few
# tokens more than it can have.
_SPARE_STOP_TOKENS = 8


class Sampling:
    """Samples from a language model, with whatever adapter is active.

    Args:
        language_model: What to sample from.
        max_cached_tokens: Most tokens, of all rows together, in the cache; more rows wait. ``None``
            is what fits into a quarter of the device's memory.
    """

    def __init__(self, language_model: LanguageModel, max_cached_tokens: int | None) -> None:
        self._language_model = language_model
        self._max_cached_tokens = max_cached_tokens or _quarter_of_memory(language_model)

    def check(self, request: SampleRequest) -> None:
        """Raise for a request that cannot be answered.

        Raises:
            InvalidRequestError: A token or a parameter cannot be used.
            ContextLengthError: The prompt leaves no room in the context.
        """
        self._language_model.check_tokens(request.prompt, "the prompt", InvalidRequestError)
        room = self._language_model.max_context_length
        if len(request.prompt) >= room:
            raise ContextLengthError(
                f"the prompt has {len(request.prompt)} tokens, which leaves no room to sample in a "
                f"context of {room}. Shorten the conversation."
            )
        _check_params(request, self._language_model.vocab_size)

    def sample(self, requests: Sequence[SampleRequest]) -> list[SampleResult]:
        """Answer requests that :meth:`check` accepted, in the order given."""
        results = [_Answer(request) for request in requests]
        samples = [
            self._new_sample(index, request, number, stream)
            for index, request in enumerate(requests)
            for number, stream in enumerate(_streams(request))
        ]
        for batch in self._batches(samples):
            self._run(batch, results)
        for sample in samples:
            results[sample.request_index].sequences.append(sample.result())
        return [answer.result() for answer in results]

    def _new_sample(
        self, index: int, request: SampleRequest, number: int, stream: np.random.Generator
    ) -> "_Sample":
        params = request.params
        room = self._language_model.max_context_length - len(request.prompt)
        return _Sample(
            request_index=index,
            prompt=request.prompt,
            params=params,
            stream=stream,
            stop_token_ids=frozenset(params.stop_token_ids),
            max_tokens=room if params.max_tokens is None else min(room, params.max_tokens),
        )

    def _batches(self, samples: list["_Sample"]) -> Iterator[list["_Sample"]]:
        """Batches whose cache fits; for models that cannot pad, of one prompt length."""
        shared = self._language_model.takes_tree_mask
        batch: list[_Sample] = []
        widest_prompt = most_tokens = 0
        ordered = samples if shared else sorted(samples, key=lambda sample: len(sample.prompt))
        for sample in ordered:
            widest_prompt = max(widest_prompt, len(sample.prompt))
            most_tokens = max(most_tokens, sample.max_tokens)
            size = (len(batch) + 1) * (widest_prompt + most_tokens)
            fits = size <= self._max_cached_tokens
            if not shared and batch:
                fits = fits and len(sample.prompt) == len(batch[0].prompt)
                prefill = (len(batch) + 1) * len(sample.prompt)
                fits = fits and prefill <= self._language_model.max_tokens_per_pass
            if batch and not fits:
                yield batch
                batch, widest_prompt, most_tokens = [], len(sample.prompt), sample.max_tokens
            batch.append(sample)
        if batch:
            yield batch

    def _run(self, samples: list["_Sample"], answers: list["_Answer"]) -> None:
        """Sample a batch to its end; fill in the prompt logprobs of its requests."""
        numbers: dict[bytes, int] = {}
        prompt_of_row = [numbers.setdefault(s.prompt.tobytes(), len(numbers)) for s in samples]
        prompts = {number: s.prompt for number, s in zip(prompt_of_row, samples, strict=True)}
        waiting = {
            s.request_index: number
            for number, s in zip(prompt_of_row, samples, strict=True)
            if answers[s.request_index].wants_prompt
        }
        make = SharedPrefixDecoder if self._language_model.takes_tree_mask else EqualLengthDecoder
        decoder: Decoder = make(
            self._language_model,
            [prompts[number] for number in range(len(prompts))],
            prompt_of_row,
            set(waiting.values()),
        )
        for index, number in waiting.items():
            answers[index].fill_prompt(self._language_model, decoder.prompt_hidden[number])
        decoder.prompt_hidden.clear()
        while True:
            tokens = self._draw(samples, decoder.last_hidden)
            going = [row for row, s in enumerate(samples) if not self._ends(s)]
            if not going:
                return
            if len(going) < len(samples):
                rows = torch.tensor(going, device=tokens.device)
                samples, tokens = [samples[row] for row in going], tokens[rows]
                decoder.keep(rows)
            decoder.step(tokens)

    def _draw(self, samples: list["_Sample"], hidden: torch.Tensor) -> torch.Tensor:
        """Draw one token for every sample, and note it with its logprob: int64 ``[B]``."""
        logits = self._language_model.logits(hidden)
        uniforms = [sample.stream.random() for sample in samples]
        tokens = choose_tokens(logits, [sample.params for sample in samples], uniforms)
        chosen = logits.gather(1, tokens[:, None]).squeeze(1)
        logprobs = chosen - torch.logsumexp(logits, dim=-1)
        rows = zip(samples, tokens.tolist(), logprobs.tolist(), strict=True)
        for sample, token, logprob in rows:
            sample.tokens.append(token)
            sample.logprobs.append(logprob)
        return tokens

    def _ends(self, sample: "_Sample") -> bool:
        if sample.tokens[-1] in sample.stop_token_ids or self._ends_in_stop_string(sample):
            sample.stop_reason = "stop"
            return True
        return len(sample.tokens) >= sample.max_tokens

    def _ends_in_stop_string(self, sample: "_Sample") -> bool:
        strings = sample.params.stop_strings
        if not strings:
            return False
        # A token is at least one byte, so no stop string ends in this token and starts earlier.
        longest = max(len(string.encode()) for string in strings) + _SPARE_STOP_TOKENS
        text = self._language_model.tokenizer.decode(sample.tokens[-longest:])
        return any(string in text for string in strings)


def choose_tokens(
    logits: torch.Tensor, params: Sequence[SamplingParams], uniforms: Sequence[float]
) -> torch.Tensor:
    """Draw one token a row by inverting the cumulative distribution.

    Temperature comes first, then ``top_k``, then ``top_p`` (the fewest tokens whose probability
    reaches it), as in ``transformers``. A row's token depends on its own logits, parameters and
    uniform number only.

    Args:
        logits: float32 ``[B, V]``.
        params: One a row.
        uniforms: In ``[0, 1)``, one a row.

    Returns:
        int64 ``[B]``.
    """
    device = logits.device
    temperature = torch.tensor([p.temperature for p in params], device=device)
    greedy = temperature == 0
    scaled = logits / torch.where(greedy, 1.0, temperature)[:, None]
    filtered = [
        row
        for row, p in enumerate(params)
        if p.temperature > 0 and (p.top_p < 1 or 0 < p.top_k < logits.shape[1])
    ]
    if filtered:
        rows = torch.tensor(filtered, device=device)
        scaled[rows] = _filter(scaled[rows], [params[row] for row in filtered])
    # In float32 the sum over a large vocabulary would lose the tail; MPS has nothing wider.
    wide = torch.float32 if device.type == "mps" else torch.float64
    cumulative = torch.softmax(scaled, dim=-1, dtype=wide).cumsum(dim=-1)
    uniform = torch.tensor(uniforms, dtype=wide, device=device)[:, None]
    # The first token whose cumulative probability exceeds the number: never one of probability 0.
    drawn = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
    drawn = drawn.squeeze(1).clamp(max=logits.shape[1] - 1)
    return torch.where(greedy, logits.argmax(dim=-1), drawn)


def _filter(logits: torch.Tensor, params: Sequence[SamplingParams]) -> torch.Tensor:
    """Set to -inf what ``top_k`` and ``top_p`` exclude."""
    device, vocabulary = logits.device, logits.shape[1]
    top_k = torch.tensor([p.top_k if p.top_k > 0 else vocabulary for p in params], device=device)
    top_p = torch.tensor([p.top_p for p in params], device=device)
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(vocabulary, device=device)[None]
    ordered = ordered.masked_fill(rank >= top_k[:, None], -torch.inf)
    probability = torch.softmax(ordered, dim=-1)
    before = probability.cumsum(dim=-1) - probability
    excluded = (before >= top_p[:, None]) & (rank > 0) & (top_p < 1)[:, None]
    ordered = ordered.masked_fill(excluded, -torch.inf)
    return torch.empty_like(logits).scatter_(1, order, ordered)


@dataclass(slots=True, kw_only=True)
class _Sample:
    """One sample in flight."""

    request_index: int
    prompt: IntArray
    params: SamplingParams
    stream: np.random.Generator
    stop_token_ids: frozenset[int]
    max_tokens: int
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    stop_reason: StopReason = "length"

    def result(self) -> SampledSequence:
        return SampledSequence(
            tokens=np.array(self.tokens, np.int64),
            logprobs=np.array(self.logprobs, np.float32),
            stop_reason=self.stop_reason,
        )


class _Answer:
    """What one request gets, as it comes together."""

    def __init__(self, request: SampleRequest) -> None:
        self._request = request
        self.sequences: list[SampledSequence] = []
        self._logprobs: FloatArray | None = None
        self._topk: tuple[IntArray, FloatArray] | None = None

    @property
    def wants_prompt(self) -> bool:
        """Whether the prompt's own logprobs are asked for and not known yet."""
        wanted = self._request.prompt_logprobs or self._request.topk_prompt_logprobs > 0
        return wanted and self._logprobs is None and self._topk is None

    def fill_prompt(self, language_model: LanguageModel, hidden: torch.Tensor) -> None:
        """Compute the prompt's logprobs from its hidden states ``[P, D]``."""
        prompt = torch.from_numpy(self._request.prompt).to(hidden.device)
        if self._request.prompt_logprobs:
            rows = torch.arange(len(prompt) - 1, device=hidden.device)
            found = language_model.token_logprobs(hidden[:-1], rows, prompt[1:])
            self._logprobs = np.full(len(prompt), np.nan, np.float32)
            self._logprobs[1:] = found.cpu().numpy()
        k = self._request.topk_prompt_logprobs
        if k > 0:
            ids = np.full((len(prompt), k), -1, np.int64)
            logprobs = np.full((len(prompt), k), np.nan, np.float32)
            if len(prompt) > 1:
                top_ids, top = language_model.topk_logprobs(hidden[:-1], k)
                ids[1:], logprobs[1:] = top_ids.cpu().numpy(), top.cpu().numpy()
            self._topk = ids, logprobs

    def result(self) -> SampleResult:
        return SampleResult(
            sequences=self.sequences,
            prompt_logprobs=self._logprobs,
            topk_prompt_logprobs=self._topk,
        )


def _streams(request: SampleRequest) -> list[np.random.Generator]:
    """A stream of random numbers for each sample, whatever else is sampled beside it."""
    root = np.random.SeedSequence(request.params.seed)
    return [
        np.random.Generator(np.random.Philox(child)) for child in root.spawn(request.num_samples)
    ]


def _check_params(request: SampleRequest, vocab_size: int) -> None:
    params = request.params
    rules = {
        "num_samples must be 1 or more": request.num_samples >= 1,
        "max_tokens must be 1 or more": params.max_tokens is None or params.max_tokens >= 1,
        "temperature must be 0 or more and finite": 0 <= params.temperature < float("inf"),
        "top_k must be -1 (all) or 1 or more": params.top_k == -1 or params.top_k >= 1,
        "top_p must be above 0 and at most 1": 0 < params.top_p <= 1,
        "seed must be 0 or more": params.seed is None or params.seed >= 0,
        "stop strings must not be empty": all(params.stop_strings),
        f"topk_prompt_logprobs must be from 0 to {vocab_size}": (
            0 <= request.topk_prompt_logprobs <= vocab_size
        ),
    }
    for rule, kept in rules.items():
        if not kept:
            raise InvalidRequestError(f"{rule}: {request.num_samples=}, {params}")


def _quarter_of_memory(language_model: LanguageModel) -> int:
    config = language_model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    per_token = 2 * config.num_hidden_layers * heads * head_dim * language_model.dtype.itemsize
    if language_model.device.type == "cuda":
        memory = torch.cuda.get_device_properties(language_model.device).total_memory
    else:
        memory = psutil.virtual_memory().total
    return max(1, memory // 4 // per_token)
