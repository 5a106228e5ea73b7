"""Training sequences to the datums of the Tinker wire.

A datum predicts: its input is a sequence without the last token, its targets are the sequence
without the first. What belongs to a token (logprob, advantage, weight) is aligned with the
targets, and zero where the token was not sampled by the policy. The losses that read these
arrays are documented at https://tinker-docs.thinkingmachines.ai/losses.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import tinker

from art.errors import ContextLengthError
from art.rl.sequences import TrainingSequence

FloatArray = npt.NDArray[np.float32]


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


def policy_datums(
    sequences: Sequence[TrainingSequence], advantages: Sequence[FloatArray]
) -> list[tinker.Datum]:
    """Make datums for a policy-gradient loss: importance_sampling, ppo or cispo.

    Args:
        sequences: Training sequences of at least two tokens.
        advantages: For each sequence float32 ``[T]``, zero where the mask is.

    Returns:
        Datums with ``target_tokens`` int64, ``logprobs`` and ``advantages`` float32, ``[T-1]``.
    """
    return [
        _datum(
            sequence,
            logprobs=np.where(sequence.mask, sequence.logprobs, 0.0),
            advantages=advantage_T,
        )
        for sequence, advantage_T in zip(sequences, advantages, strict=True)
    ]


def imitation_datums(sequences: Sequence[TrainingSequence]) -> list[tinker.Datum]:
    """Make datums for the cross_entropy loss: maximum likelihood of the sampled tokens.

    On the sequences whose advantage is positive, this is rejection-sampling fine-tuning (RAFT,
    arXiv:2304.06767). All that are given are imitated, so the others must be left out.

    Args:
        sequences: Training sequences of at least two tokens.

    Returns:
        Datums with ``target_tokens`` int64 and ``weights`` float32, ``[T-1]``: 1 where sampled.
    """
    return [_datum(sequence, weights=sequence.mask.astype(np.float32)) for sequence in sequences]


def check_context_length(sequences: Sequence[TrainingSequence], max_tokens: int) -> None:
    """Refuse sequences that the model cannot take, before anything is sent.

    Args:
        sequences: Training sequences.
        max_tokens: How many tokens of a sequence fit the model's context.

    Raises:
        ContextLengthError: Names the first sequence that is too long, and how many are.
    """
    lengths = [len(sequence.tokens) for sequence in sequences]
    too_long = [index for index, length in enumerate(lengths) if length > max_tokens]
    if too_long:
        first = too_long[0]
        raise ContextLengthError(
            f"training sequence {first} of {len(sequences)} has {lengths[first]} tokens, more "
            f"than the {max_tokens} that fit the model's context ({len(too_long)} sequences are "
            "too long); shorten the prompts or lower max_tokens"
        )


def _datum(sequence: TrainingSequence, **per_token: npt.NDArray[np.floating]) -> tinker.Datum:
    inputs = {
        name: tinker.TensorData.from_numpy(values[1:].astype(np.float32))
        for name, values in per_token.items()
    }
    targets = tinker.TensorData.from_numpy(sequence.tokens[1:].astype(np.int64))
    return tinker.Datum(
        model_input=tinker.ModelInput.from_ints(sequence.tokens[:-1].tolist()),
        loss_fn_inputs={"target_tokens": targets, **inputs},
    )
