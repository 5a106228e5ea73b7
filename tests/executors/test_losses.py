"""Every loss and its gradient, against plain Python over single tokens."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from art.executors.losses import Loss
from art.executors.types import LossFunction
from art.formats.losses import LOSSES

Array = npt.NDArray[np.float64]

# Ratios p/q far below, inside and far above every clip range, with advantages of every sign.
LOG_RATIOS = [-2.0, -0.3, -0.1, 0.0, 0.1, 0.3, 2.0]
TOKENS = [(r, a) for r in LOG_RATIOS for a in (-1.5, 0.0, 2.0)]
P = np.array([-3.0 + 0.01 * i for i in range(len(TOKENS))])
Q = P - np.array([r for r, _ in TOKENS])
A = np.array([a for _, a in TOKENS])


def clip(x: float, low: float, high: float) -> float:
    return max(low, min(high, x))


def reference(
    name: str, p: float, q: float, a: float, config: Mapping[str, float]
) -> tuple[float, float]:
    """Loss and its derivative by log p, for one token."""
    ratio = math.exp(p - q)
    if name == "importance_sampling":
        return -ratio * a, -ratio * a
    if name == "cispo":
        c = clip(ratio, config["clip_low_threshold"], config["clip_high_threshold"])
        return -c * p * a, -c * a
    if name == "dro":
        drift = p - q
        return -(p * a - 0.5 * config["beta"] * drift**2), -(a - config["beta"] * drift)
    assert name == "ppo"
    clipped = clip(ratio, config["clip_low_threshold"], config["clip_high_threshold"])
    if ratio * a <= clipped * a:
        return -ratio * a, -ratio * a
    return -clipped * a, 0.0


def compute(
    name: str, config: dict[str, float] | None = None, p: Array = P, **inputs: Array
) -> tuple[Array, Array]:
    loss = Loss.of(LossFunction(name=name, config=config or {}))
    logprobs = torch.tensor(p, requires_grad=True)
    values = loss.tokens(logprobs, {k: torch.tensor(v) for k, v in inputs.items()})
    values.sum().backward()
    assert logprobs.grad is not None
    return values.detach().numpy(), logprobs.grad.numpy()


@pytest.mark.parametrize(
    ("name", "given", "defaults"),
    [
        ("importance_sampling", {}, {}),
        ("ppo", {}, {"clip_low_threshold": 0.8, "clip_high_threshold": 1.2}),
        (
            "ppo",
            {"clip_low_threshold": 0.5},
            {"clip_low_threshold": 0.5, "clip_high_threshold": 1.2},
        ),
        ("cispo", {}, {"clip_low_threshold": 0.0, "clip_high_threshold": 4.0}),
        ("cispo", {"clip_low_threshold": 0.9, "clip_high_threshold": 1.1}, {}),
        ("dro", {"beta": 0.3}, {}),
    ],
)
def test_policy_losses_equal_the_plain_formula(
    name: str, given: dict[str, float], defaults: dict[str, float]
) -> None:
    values, gradient = compute(name, given, logprobs=Q, advantages=A)
    expected = [
        reference(name, p, q, a, {**defaults, **given}) for p, q, a in zip(P, Q, A, strict=True)
    ]
    np.testing.assert_allclose(values, [loss for loss, _ in expected], rtol=1e-12)
    np.testing.assert_allclose(gradient, [slope for _, slope in expected], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mean", [-0.05, -0.0001, 0.0, 0.0001, 0.05])
def test_gspo_clips_the_geometric_mean_of_the_masked_ratios(mean: float) -> None:
    log_ratios = np.array([9.0, mean - 0.1, mean + 0.1, -9.0])
    mask = np.array([0.0, 1.0, 1.0, 0.0])
    advantages = np.array([0.0, 1.0, -2.0, 3.0])
    p = np.array([-1.0, -2.0, -3.0, -4.0])
    values, gradient = compute(
        "gspo", p=p, logprobs=p - log_ratios, advantages=advantages, sequence_ratio_mask=mask
    )
    ratio = math.exp(mean)
    for value, slope, a in zip(values, gradient, advantages, strict=True):
        clipped = clip(ratio, 1 - 3e-4, 1 + 4e-4)
        free = ratio * a <= clipped * a
        assert value == pytest.approx(-ratio * a if free else -clipped * a, rel=1e-9)
        # The value is the sequence's, the gradient each token's own.
        assert slope == pytest.approx(-ratio * a if free else 0.0, rel=1e-9)


def test_gspo_with_nothing_sampled_is_zero() -> None:
    values, gradient = compute(
        "gspo", logprobs=Q, advantages=A, sequence_ratio_mask=np.zeros_like(A)
    )
    assert not values.any()
    assert not gradient.any()


def test_cross_entropy_is_weighted_and_takes_many_targets() -> None:
    p, weights = np.array([[-1.0, -2.0], [-3.0, -4.0]]), np.array([[0.25, 0.75], [0.0, -2.0]])
    values, gradient = compute("cross_entropy", p=p, weights=weights)
    np.testing.assert_array_equal(values, [[0.25, 1.5], [0.0, -8.0]])
    np.testing.assert_array_equal(gradient, -weights)
    np.testing.assert_array_equal(compute("cross_entropy", p=p)[0], -p)


@pytest.mark.parametrize("name", ["importance_sampling", "ppo", "cispo"])
def test_a_masked_token_is_zero_even_where_its_ratio_overflows(name: str) -> None:
    values, gradient = compute(
        name, p=np.array([-1.0]), logprobs=np.array([-1e5]), advantages=np.array([0.0])
    )
    assert values.tolist() == [0.0]
    assert gradient.tolist() == [0.0]


def test_gspo_without_a_mask_counts_the_tokens_that_have_an_advantage() -> None:
    advantages = np.array([0.0, 1.0, -2.0, 0.0])
    p, q = np.array([-1.0, -2.0, -3.0, -4.0]), np.array([-9.0, -2.1, -2.8, -1.0])
    given: dict[str, Any] = {"p": p, "logprobs": q, "advantages": advantages}
    derived = compute("gspo", **given)
    said = compute("gspo", **given, sequence_ratio_mask=np.array([0.0, 1.0, 1.0, 0.0]))
    np.testing.assert_array_equal(derived, said)
    assert derived[0].any()


def test_every_loss_of_the_table_has_a_formula() -> None:
    assert [Loss.of(LossFunction(name=name)).spec for name in LOSSES] == list(LOSSES.values())
