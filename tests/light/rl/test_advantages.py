"""Advantages: worked examples, exact arithmetic, and what is refused."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from art.errors import EmptyGroupError, InvalidRewardError
from art.rl.advantages import group_advantages

# Rewards of a common grid, so that the reference can be exact.
grid = st.lists(st.integers(-1000, 1000).map(lambda n: n / 8), min_size=1, max_size=16)


def reference(rewards: list[float], *, normalize: bool) -> list[float]:
    """The two formulas in exact arithmetic, up to the square root."""
    exact = [Fraction(reward) for reward in rewards]
    mean = sum(exact) / len(exact)
    variance = sum((reward - mean) ** 2 for reward in exact) / len(exact)
    if variance == 0:
        return [0.0] * len(exact)
    return [float(r - mean) / (math.sqrt(variance) if normalize else 1.0) for r in exact]


@pytest.mark.parametrize(
    ("rewards", "normalized", "centred"),
    [
        ([1, 0], [1, -1], [0.5, -0.5]),
        ([1, 0, 0, 0], [math.sqrt(3), *[-1 / math.sqrt(3)] * 3], [0.75, -0.25, -0.25, -0.25]),
        ([1, 2, 3], [-math.sqrt(1.5), 0, math.sqrt(1.5)], [-1, 0, 1]),
        ([0.3], [0], [0]),
        ([7, 7, 7], [0, 0, 0], [0, 0, 0]),
        ([0, 0], [0, 0], [0, 0]),
    ],
)
def test_advantages_of_worked_examples(
    rewards: list[float], normalized: list[float], centred: list[float]
) -> None:
    np.testing.assert_allclose(group_advantages(rewards), normalized, atol=1e-15)
    np.testing.assert_allclose(group_advantages(rewards, normalize=False), centred, atol=1e-15)


@given(grid, st.booleans())
def test_advantages_agree_with_exact_arithmetic(rewards: list[float], normalize: bool) -> None:
    advantages = group_advantages(rewards, normalize=normalize)
    assert advantages.dtype == np.float64
    assert advantages.shape == (len(rewards),)
    expected = reference(rewards, normalize=normalize)
    np.testing.assert_allclose(advantages, expected, rtol=1e-9, atol=1e-9)


@given(grid, st.floats(0.01, 100), st.integers(-50, 50))
def test_normalized_advantages_have_no_unit_and_no_origin(
    rewards: list[float], unit: float, origin: int
) -> None:
    moved = [reward * unit + origin for reward in rewards]
    np.testing.assert_allclose(group_advantages(moved), group_advantages(rewards), atol=1e-6)


@given(st.floats(-1e300, 1e300), st.integers(1, 9))
def test_equal_rewards_teach_nothing(reward: float, size: int) -> None:
    assert not group_advantages([reward] * size).any()


def test_rewards_that_differ_by_rounding_teach_nothing() -> None:
    # 0.1 + 0.2 is not 0.3; dividing by the deviation would make this 1 and -1.
    assert not group_advantages([0.1 + 0.2, 0.3]).any()


@pytest.mark.parametrize("scale", [1e-300, 1e308])
def test_rewards_at_the_ends_of_the_range_neither_overflow_nor_vanish(scale: float) -> None:
    np.testing.assert_allclose(
        group_advantages([scale, -scale, scale]), [2**-0.5, -(2**0.5), 2**-0.5]
    )
    centred = group_advantages([scale, -scale, scale], normalize=False)
    np.testing.assert_allclose(centred / scale, [2 / 3, -4 / 3, 2 / 3])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_no_number_is_refused(bad: float) -> None:
    with pytest.raises(InvalidRewardError, match=str(bad)):
        group_advantages([0.0, bad])


def test_an_empty_group_is_refused() -> None:
    with pytest.raises(EmptyGroupError):
        group_advantages([])
