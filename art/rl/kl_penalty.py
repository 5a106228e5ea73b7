"""A penalty on the policy's distance from its base model, added to the advantages.

Sampled tokens whose logprob rose above the base model's lose advantage, those that fell gain it:

    diff_t = logp_policy(t) - logp_base(t)          on sampled tokens
    advantage_t += coef * (mean(diff) - diff_t)

with the mean over all sampled tokens of the batch. This is the KL penalty of Thinking Machines'
tinker-cookbook (``tinker_cookbook.rl.metrics.incorporate_kl_penalty``) without discounting.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from art.rl.sequences import TrainingSequence

FloatArray = npt.NDArray[np.float32]


def penalize_kl(
    sequences: Sequence[TrainingSequence],
    advantages: Sequence[FloatArray],
    base_logprobs: Sequence[FloatArray],
    coef: float,
) -> tuple[list[FloatArray], float]:
    """Add the penalty to token advantages.

    Args:
        sequences: Training sequences, with the logprobs of the policy that sampled them.
        advantages: For each sequence float32 ``[T]``, zero where the mask is.
        base_logprobs: For each sequence float32 ``[T]``: each token's logprob under the base
            model. Read only where the mask is true.
        coef: Weight of the penalty, in advantage per nat.

    Returns:
        The new advantages, zero where the mask is, and the mean of ``diff`` in nats: an estimate
        of KL(policy || base) per token.
    """
    diffs = [
        np.where(sequence.mask, sequence.logprobs - base, 0.0)
        for sequence, base in zip(sequences, base_logprobs, strict=True)
    ]
    num_sampled = sum(int(sequence.mask.sum()) for sequence in sequences)
    mean = sum(float(diff.sum(dtype=np.float64)) for diff in diffs) / max(num_sampled, 1)
    penalized = [
        np.where(sequence.mask, advantage_T + coef * (mean - diff), 0.0).astype(np.float32)
        for sequence, advantage_T, diff in zip(sequences, advantages, diffs, strict=True)
    ]
    return penalized, mean
