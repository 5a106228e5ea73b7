"""The records that an executor takes and gives. The wire's own types end where these begin."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from art.formats.sampling_controls import NO_CONTROLS, SamplingControls

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]

StopReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraConfig:
    """The adapter of one model.

    Attributes:
        rank: Rank of A and B.
        alpha: Scale: the adapter adds ``alpha / rank * B @ A``.
        seed: Seed of A's initial values; ``None`` draws one.
        train_attn, train_mlp, train_unembed: Which modules get an adapter, as on the wire.
    """

    rank: int
    alpha: float
    seed: int | None = None
    train_attn: bool = True
    train_mlp: bool = True
    train_unembed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Datum:
    """One training sequence.

    Attributes:
        tokens: int64 ``[T]``, the model's input.
        loss_inputs: Arrays by name, aligned with ``tokens``: ``target_tokens`` int64, the others
            float32. ``[T]``, or ``[T, K]`` where a loss takes K targets a position.
    """

    tokens: IntArray
    loss_inputs: dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LossFunction:
    """A loss of the wire by name (``"importance_sampling"``) with its numbers."""

    name: str
    config: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardBackwardResult:
    """The result of a forward, or forward and backward, pass.

    Attributes:
        outputs: For each datum, in the order given, arrays by name (``logprobs`` float32 ``[T]``).
        metrics: Numbers by ``name:reduction``, such as ``loss:sum``.
    """

    outputs: list[dict[str, FloatArray]]
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """The settings of sampling.

    Attributes:
        max_tokens: Most tokens to sample; ``None`` is up to the end of the context.
        temperature: 0 is greedy.
        top_k: -1 is all.
        top_p: 1.0 is all.
        seed: Same seed, same prompt, same weights: same tokens. Sample ``i`` of one request
            draws from a stream of its own.
        stop_token_ids: A sampled token among these ends a sequence, which keeps it.
        stop_strings: Text that ends a sequence as soon as the decoded text contains it.
        controls: Settings of art's own, beyond those of the Tinker API.
    """

    max_tokens: int | None = None
    temperature: float = 1.0
    top_k: int = -1
    top_p: float = 1.0
    seed: int | None = None
    stop_token_ids: tuple[int, ...] = ()
    stop_strings: tuple[str, ...] = ()
    controls: SamplingControls = NO_CONTROLS


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRequest:
    """One prompt, and the samples wanted of it.

    Attributes:
        adapter_id: The adapter to sample with (see ``Sampler.load_adapter``);
            ``None`` is the base model.
        prompt: int64 ``[P]``, at least one token.
        num_samples: How many sequences.
        params: How to sample.
        prompt_logprobs: Whether to return the prompt's own logprobs.
        topk_prompt_logprobs: How many of the most likely tokens to return for each prompt
            position; 0 is none.
        target_prompt_tokens: Tokens whose logprobs to return: int64 ``[L]``, ascending, the
            position before each, and int64 ``[L]`` the tokens; ``None`` is none.
        prompt_alternatives: How many tokens to draw, at the temperature alone and with
            replacement, in the place of each prompt token but the first; 0 is none.
        topk_logprobs: How many of the most likely tokens to return for each sampled token; 0 is
            none.
    """

    adapter_id: str | None
    prompt: IntArray
    num_samples: int
    params: SamplingParams
    prompt_logprobs: bool = False
    topk_prompt_logprobs: int = 0
    target_prompt_tokens: tuple[IntArray, IntArray] | None = None
    prompt_alternatives: int = 0
    topk_logprobs: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledSequence:
    """One sample: ``tokens`` int64 ``[N]`` and the logprob of each, float32 ``[N]``.

    Logprobs are those of the untempered, unfiltered model distribution, which training
    recomputes.

    Attributes:
        topk_logprobs: The most likely tokens at each place, int64 ``[N, K]``, the likeliest
            first, and their logprobs, float32 ``[N, K]``; ``None`` when not asked for.
    """

    tokens: IntArray
    logprobs: FloatArray
    stop_reason: StopReason
    topk_logprobs: tuple[IntArray, FloatArray] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleResult:
    """The samples of one request.

    Attributes:
        sequences: ``num_samples`` of them.
        prompt_logprobs: float32 ``[P]``, the first NaN; ``None`` when not asked for.
        topk_prompt_logprobs: Token ids int64 ``[P, K]`` and logprobs float32 ``[P, K]``, the first
            row empty (-1 and NaN); ``None`` when not asked for.
        target_prompt_logprobs: float32 ``[L]``, of the request's ``target_prompt_tokens``;
            ``None`` when not asked for.
        prompt_alternatives: Drawn tokens int64 ``[P - 1, K]`` and their logprobs float32
            ``[P - 1, K]``; ``None`` when not asked for.
    """

    sequences: list[SampledSequence]
    prompt_logprobs: FloatArray | None = None
    topk_prompt_logprobs: tuple[IntArray, FloatArray] | None = None
    target_prompt_logprobs: FloatArray | None = None
    prompt_alternatives: tuple[IntArray, FloatArray] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseModelInfo:
    """The base model of an executor, as the engine describes it.

    Attributes:
        name: The name it is asked for by.
        tokenizer_id: A folder or hub name that ``AutoTokenizer.from_pretrained`` takes.
        architecture: Such as ``"LlamaForCausalLM"``.
        max_context_length: In tokens.
        eos_token_ids: Tokens that end a sequence where a request names no stop tokens.
    """

    name: str
    tokenizer_id: str
    architecture: str
    max_context_length: int
    eos_token_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedRequest:
    """A sampling request that has ended, with its result or with the reason that it has none."""

    request_id: str
    outcome: SampleResult | Exception
