"""The losses of the wire, by name.

The formulas, input names and configuration keys are those of Thinking Machines' documentation,
https://tinker-docs.thinkingmachines.ai/tinker/losses and the page of each loss under it; each
default names its own source where that is another. Every loss is a sum over tokens. ``p`` is the
policy that is trained, ``q`` the one that sampled.

Shapes: T tokens of one datum, K targets a position.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

import torch

from art.errors import InvalidRequestError
from art.executors.types import LossFunction

Inputs = Mapping[str, torch.Tensor]
Config = Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """One loss and what it needs.

    Attributes:
        function: From the targets' logprobs under ``p`` ``[T]``, the inputs and the configuration
            to the loss of each token, same shape, float32.
        required: Names of the inputs that a datum must have, besides ``target_tokens``.
        optional: Names of the inputs that it may have.
        defaults: The configuration keys and their defaults.
        weighted_by: The input that makes a token's loss zero, and constant, where it is zero;
            ``None`` where there is no such input.
        takes_many_targets: Whether ``target_tokens`` may be ``[T, K]``.
    """

    function: Callable[[torch.Tensor, Inputs, Config], torch.Tensor]
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    defaults: Config
    weighted_by: str | None = None
    takes_many_targets: bool = False

    def active(self, inputs: Inputs, target_tokens: torch.Tensor) -> torch.Tensor:
        """Which targets can have a loss other than zero: bool, shaped as ``target_tokens``."""
        if self.weighted_by is None or self.weighted_by not in inputs:
            return torch.ones_like(target_tokens, dtype=torch.bool)
        return inputs[self.weighted_by] != 0


def cross_entropy(logprobs: torch.Tensor, inputs: Inputs, config: Config) -> torch.Tensor:
    """``-weights * log p``. Inputs: ``weights`` ``[T]`` or ``[T, K]``, 1 where absent.

    Source: https://tinker-docs.thinkingmachines.ai/tinker/losses
    """
    weights = inputs.get("weights")
    return -logprobs if weights is None else -weights * logprobs


def importance_sampling(logprobs: torch.Tensor, inputs: Inputs, config: Config) -> torch.Tensor:
    """``-(p / q) * advantages``. Inputs: ``logprobs`` (of ``q``), ``advantages``.

    Source: https://tinker-docs.thinkingmachines.ai/tinker/losses/importance-sampling
    """
    return -_ratio(logprobs, inputs) * inputs["advantages"]


def ppo(logprobs: torch.Tensor, inputs: Inputs, config: Config) -> torch.Tensor:
    """``-min(r * A, clip(r, low, high) * A)``, token by token, with ``r = p / q``.

    Configuration: ``clip_low_threshold`` (0.8) and ``clip_high_threshold`` (1.2), bounds of the
    ratio itself. Sources: Schulman et al. 2017 (arXiv:1707.06347);
    https://tinker-docs.thinkingmachines.ai/tinker/losses/ppo
    """
    return _clipped_objective(_ratio(logprobs, inputs), inputs, config)


def cispo(logprobs: torch.Tensor, inputs: Inputs, config: Config) -> torch.Tensor:
    """``-stop_gradient(clip(r, low, high)) * log p * A``, with ``r = p / q``.

    A clipped token keeps its gradient; only the coefficient is bounded. Configuration:
    ``clip_low_threshold`` (0.0) and ``clip_high_threshold`` (4.0). Sources: MiniMax-M1
    (arXiv:2506.13585); https://tinker-docs.thinkingmachines.ai/tinker/losses/cispo
    """
    coefficient = _clip(_ratio(logprobs, inputs), config).detach()
    return -coefficient * logprobs * inputs["advantages"]


def dro(logprobs: torch.Tensor, inputs: Inputs, config: Config) -> torch.Tensor:
    """``-(log p * A - beta / 2 * (log p - log q)^2)``.

    Configuration: ``beta`` (0.05, the value of the page's example). Sources: Richemond et al. 2024
    (arXiv:2405.19107); https://tinker-docs.thinkingmachines.ai/tinker/losses/dro
    """
    drift = logprobs - inputs["logprobs"]
    return -(logprobs * inputs["advantages"] - 0.5 * config["beta"] * drift**2)


def gspo(logprobs: torch.Tensor, inputs: Inputs, config: Config) -> torch.Tensor:
    """PPO's objective on the sequence's ratio, each token keeping its own gradient (GSPO-token).

    The ratio is the geometric mean of the token ratios over the tokens that
    ``sequence_ratio_mask`` marks. Configuration: ``clip_low_threshold`` (1 - 3e-4) and
    ``clip_high_threshold`` (1 + 4e-4), the paper's values. Sources: Zheng et al. 2025
    (arXiv:2507.18071), clip ranges of its section 5.1;
    https://tinker-docs.thinkingmachines.ai/tinker/losses/gspo
    """
    sampled = inputs["sequence_ratio_mask"] != 0
    if not bool(sampled.any()):
        return 0 * logprobs
    log_ratio = (logprobs.detach() - inputs["logprobs"])[sampled].mean()
    return _clipped_objective(torch.exp(log_ratio + logprobs - logprobs.detach()), inputs, config)


LOSSES: Mapping[str, Loss] = {
    "cross_entropy": Loss(
        function=cross_entropy,
        optional=("weights",),
        defaults={},
        weighted_by="weights",
        takes_many_targets=True,
    ),
    "importance_sampling": Loss(
        function=importance_sampling,
        required=("logprobs", "advantages"),
        defaults={},
        weighted_by="advantages",
    ),
    "ppo": Loss(
        function=ppo,
        required=("logprobs", "advantages"),
        defaults={"clip_low_threshold": 0.8, "clip_high_threshold": 1.2},
        weighted_by="advantages",
    ),
    "cispo": Loss(
        function=cispo,
        required=("logprobs", "advantages"),
        defaults={"clip_low_threshold": 0.0, "clip_high_threshold": 4.0},
        weighted_by="advantages",
    ),
    "dro": Loss(function=dro, required=("logprobs", "advantages"), defaults={"beta": 0.05}),
    "gspo": Loss(
        function=gspo,
        required=("logprobs", "advantages", "sequence_ratio_mask"),
        defaults={"clip_low_threshold": 1 - 3e-4, "clip_high_threshold": 1 + 4e-4},
        weighted_by="advantages",
    ),
}


def find_loss(loss: LossFunction) -> tuple[Loss, Config]:
    """Look a loss up and complete its configuration.

    Returns:
        The loss, and its configuration with defaults filled in.

    Raises:
        InvalidRequestError: The name or a configuration key is unknown, or a value cannot be used.
    """
    if loss.name not in LOSSES:
        near = get_close_matches(loss.name, LOSSES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InvalidRequestError(f"unknown loss {loss.name!r}; known: {', '.join(LOSSES)}.{hint}")
    found = LOSSES[loss.name]
    unknown = sorted(set(loss.config) - set(found.defaults))
    if unknown:
        known = ", ".join(sorted(found.defaults)) or "none"
        raise InvalidRequestError(
            f"loss {loss.name!r} has no configuration key {unknown[0]!r}; it takes: {known}"
        )
    config = {**found.defaults, **loss.config}
    for key, value in config.items():
        if not 0 <= value < float("inf"):
            raise InvalidRequestError(f"{key} of loss {loss.name!r} must be 0 or more, not {value}")
    if config.get("clip_low_threshold", 0.0) > config.get("clip_high_threshold", 0.0):
        raise InvalidRequestError(
            f"clip_low_threshold {config['clip_low_threshold']} of loss {loss.name!r} is above "
            f"clip_high_threshold {config['clip_high_threshold']}; both bound the ratio p/q itself"
        )
    return found, config


def _ratio(logprobs: torch.Tensor, inputs: Inputs) -> torch.Tensor:
    # The ratio of a token without an advantage is of no consequence, but if it overflowed, 0 * inf
    # would be NaN, in the loss or in its gradient.
    log_ratio = logprobs - inputs["logprobs"]
    return torch.exp(torch.where(inputs["advantages"] != 0, log_ratio, 0.0))


def _clip(ratio: torch.Tensor, config: Config) -> torch.Tensor:
    return torch.clamp(ratio, config["clip_low_threshold"], config["clip_high_threshold"])


def _clipped_objective(ratio: torch.Tensor, inputs: Inputs, config: Config) -> torch.Tensor:
    advantages = inputs["advantages"]
    return -torch.minimum(ratio * advantages, _clip(ratio, config) * advantages)
