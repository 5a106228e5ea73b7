"""Advantages: the reward of a rollout, relative to those of its group."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from art.errors import EmptyGroupError, InvalidRewardError

# Rewards this close, relative to the largest of them, differ by rounding only.
_RELATIVE_TOLERANCE = 1e-12


def group_advantages(
    rewards: Sequence[float] | npt.NDArray[np.floating], *, normalize: bool = True
) -> npt.NDArray[np.float64]:
    """Compute the advantages of one group of rollouts, relative to the group itself.

    With ``normalize``, GRPO's: ``A_i = (r_i - mean(r)) / std(r)``, with the standard deviation of
    the group as a population (Shao et al. 2024, "DeepSeekMath", arXiv:2402.03300, section 4.1.2).
    Without, ``A_i = r_i - mean(r)``: dividing favours questions that are nearly always or never
    solved (Liu et al. 2025, "Understanding R1-Zero-Like Training", Dr. GRPO, arXiv:2503.20783).

    Args:
        rewards: The group's rewards, ``[G]``.
        normalize: Whether to divide by the standard deviation.

    Returns:
        float64 ``[G]``; all zero where the rewards are equal (up to rounding), so also for a
        group of one.

    Raises:
        art.errors.EmptyGroupError: There are no rewards.
        art.errors.InvalidRewardError: A reward is NaN or infinite.
    """
    values = np.asarray(rewards, dtype=np.float64)
    if values.size == 0:
        raise EmptyGroupError("A group without rewards has no advantages.")
    if not np.isfinite(values).all():
        raise InvalidRewardError(f"Rewards must be finite numbers; these are {values.tolist()}.")
    scale = np.abs(values).max()
    if scale == 0:
        return np.zeros_like(values)
    # Sums of rewards near the end of float64's range would overflow; sums of their ratios cannot.
    ratios = values / scale
    if np.ptp(ratios) <= _RELATIVE_TOLERANCE:
        return np.zeros_like(values)
    centred = ratios - ratios.mean()
    advantages: npt.NDArray[np.float64] = centred / centred.std() if normalize else centred * scale
    return advantages
