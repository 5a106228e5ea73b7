"""The records between the endpoint's dialects and what samples for them.

Every dialect turns its request into a prompt of token ids with :class:`SamplingOptions`, and makes
its response of :class:`SampledTokens`. Whatever can sample implements :class:`TokenCompleter`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from art.formats.sampling_controls import NO_CONTROLS, SamplingControls

# The reason why sampling ended: a stop, or the limit on tokens.
StopReason = Literal["stop", "length"]

# The likeliest tokens at one position, with their logprobs in nats; None where the server has none.
TopLogprobs = Sequence[tuple[int, float]] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingOptions:
    """Options of one sampling request.

    Attributes:
        num_samples: Number of samples, 1 or more.
        max_tokens: Limit on the tokens of a sample; ``None`` is the rest of the context.
        temperature: Divides the logits; 0 is greedy decoding.
        top_p: Probability mass of the tokens to choose from, in (0, 1].
        top_k: Number of the likeliest tokens to choose from; -1 is all of them.
        seed: Makes the samples reproducible; ``None`` is a random one.
        stop: Texts or token ids, of one kind, whose first occurrence ends a sample.
        top_logprobs: Number of alternatives to return for each sampled token.
        controls: Settings that a Tinker server may not have.
    """

    num_samples: int = 1
    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    seed: int | None = None
    stop: Sequence[str] | Sequence[int] = ()
    top_logprobs: int = 0
    controls: SamplingControls = NO_CONTROLS


@dataclass(frozen=True, slots=True)
class SampledTokens:
    """One sample.

    Attributes:
        token_ids: ``[T]``; the token that ended the sample is the last one, if one did.
        logprobs: ``[T]``, in nats, of each token given those before it.
        stop_reason: The reason why sampling ended.
        top_logprobs: ``[T]``; ``None`` where the server returns none.
    """

    token_ids: Sequence[int]
    logprobs: Sequence[float]
    stop_reason: StopReason
    top_logprobs: Sequence[TopLogprobs] | None = None


class TokenCompleter(Protocol):
    """Samples completions of token ids from one set of weights."""

    async def complete(
        self, prompt_token_ids: Sequence[int], options: SamplingOptions
    ) -> Sequence[SampledTokens]:
        """Sample completions of a prompt. Cancelling the call stops the sampling.

        Args:
            prompt_token_ids: The prompt, at least one token.
            options: The sampling options.

        Returns:
            ``options.num_samples`` samples.

        Raises:
            art.errors.InvalidRequestError: The server refuses the request.
            art.errors.EngineError: The server failed.
        """
        ...
