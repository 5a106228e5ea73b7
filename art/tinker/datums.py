"""Training sequences to the datums of the Tinker wire.

A datum predicts: its input is a sequence without the last token, its targets are the sequence
without the first. What belongs to a token (logprob, advantage, weight) is aligned with the
targets, and zero where the token was not sampled by the policy. :mod:`art.formats.losses` says
which loss reads which array.

Shapes: T tokens of a sequence, so T-1 targets of its datum.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tinker

from art.errors import ContextLengthError
from art.formats.losses import find_loss
from art.rl.sequences import TrainingSequence

logger = logging.getLogger(__name__)

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class TokenArrays:
    """The numbers of one sequence's tokens that a loss may read.

    Attributes:
        sequence: The sequence.
        advantages_T: float32 ``[T]``, zero where the mask is.
        context_logprobs_T: float32 ``[T]``: logprobs of the tokens that were not sampled, for the
            losses that read them; zero for all others.
    """

    sequence: TrainingSequence
    advantages_T: FloatArray
    context_logprobs_T: FloatArray


def _sampled(arrays: TokenArrays) -> FloatArray:
    return arrays.sequence.mask.astype(np.float32)


def _logprobs(arrays: TokenArrays) -> FloatArray:
    sequence = arrays.sequence
    return np.where(sequence.mask, sequence.logprobs, arrays.context_logprobs_T)


# Each input of a loss but `target_tokens`, as float32 ``[T]``.
_INPUTS: Mapping[str, Callable[[TokenArrays], FloatArray]] = {
    "advantages": lambda arrays: arrays.advantages_T,
    "logprobs": _logprobs,
    "sequence_ratio_mask": _sampled,
    "weights": _sampled,
}


def token_advantages(sequences: Sequence[TrainingSequence]) -> list[FloatArray]:
    """Spread each sequence's advantage over its sampled tokens.

    Args:
        sequences: Training sequences.

    Returns:
        For each sequence float32 ``[T]``, zero where the mask is.
    """
    return [
        sequence.mask.astype(np.float32) * np.float32(sequence.advantage) for sequence in sequences
    ]


def loss_datums(
    loss_fn: str,
    sequences: Sequence[TrainingSequence],
    advantages: Sequence[FloatArray],
    context_logprobs: Sequence[FloatArray] | None = None,
) -> list[tinker.Datum]:
    """Make datums for a loss, with all inputs that it takes.

    ``sequence_ratio_mask`` and ``weights`` are 1 where a token was sampled: the latter makes
    ``cross_entropy`` the maximum likelihood of the sampled tokens.

    Args:
        loss_fn: Name of the loss.
        sequences: Training sequences of at least two tokens.
        advantages: For each sequence float32 ``[T]``, zero where the mask is.
        context_logprobs: For each sequence float32 ``[T]``: logprobs of the tokens that were not
            sampled; ``None`` is zeros.

    Returns:
        Datums with ``target_tokens`` int64, and the loss's other inputs float32, ``[T-1]``.

    Raises:
        InvalidRequestError: There is no such loss.
    """
    names = sorted(find_loss(loss_fn).inputs - {"target_tokens"})
    if context_logprobs is None:
        context_logprobs = [np.zeros(len(each.tokens), np.float32) for each in sequences]
    arrays = [
        TokenArrays(*of_one) for of_one in zip(sequences, advantages, context_logprobs, strict=True)
    ]
    return [_datum(each.sequence, {name: _INPUTS[name](each) for name in names}) for each in arrays]


def within_context(
    sequences: Sequence[TrainingSequence], max_tokens: int
) -> list[TrainingSequence]:
    """Leave out sequences that the model cannot take, with a warning, before anything is sent.

    Args:
        sequences: Training sequences.
        max_tokens: How many tokens of a sequence fit the model's context.

    Returns:
        Those that fit, at least one.

    Raises:
        ContextLengthError: None fits.
    """
    fitting = [sequence for sequence in sequences if len(sequence.tokens) <= max_tokens]
    if len(fitting) == len(sequences):
        return fitting
    problem = (
        f"{len(sequences) - len(fitting)} of {len(sequences)} training sequences have more than "
        f"the {max_tokens} tokens that fit the model's context, the longest "
        f"{max(len(sequence.tokens) for sequence in sequences)}"
    )
    if not fitting:
        raise ContextLengthError(f"{problem}; shorten the prompts or lower max_tokens")
    logger.warning("%s: they are left out", problem)
    return fitting


def _datum(sequence: TrainingSequence, inputs: Mapping[str, FloatArray]) -> tinker.Datum:
    targets = tinker.TensorData.from_numpy(sequence.tokens[1:].astype(np.int64))
    return tinker.Datum(
        model_input=tinker.ModelInput.from_ints(sequence.tokens[:-1].tolist()),
        loss_fn_inputs={
            "target_tokens": targets,
            **{
                name: tinker.TensorData.from_numpy(values_T[1:].astype(np.float32))
                for name, values_T in inputs.items()
            },
        },
    )
