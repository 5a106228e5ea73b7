"""The formulas of the wire's losses.

Names, inputs, settings and defaults are in :mod:`art.formats.losses`. Every loss is a sum over
tokens. ``p`` is the policy that is trained, ``q`` the one that sampled.

Shapes: T tokens of one datum, K targets a position.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from art.executors.types import LossFunction
from art.formats.losses import LossSpec, complete_config, find_loss

Inputs = Mapping[str, torch.Tensor]
Config = Mapping[str, float]
# From the targets' logprobs under ``p`` ``[T]``, the inputs and the configuration to the loss of
# each token, same shape, float32.
Formula = Callable[[torch.Tensor, Inputs, Config], torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """One loss, ready to compute.

    Attributes:
        spec: Its inputs and settings.
        formula: Its value, token by token.
        config: All of its settings.
    """

    spec: LossSpec
    formula: Formula
    config: Config

    @classmethod
    def of(cls, function: LossFunction) -> "Loss":
        """Look a loss up and complete its configuration.

        Raises:
            InvalidRequestError: The name or a configuration key is unknown, or a value cannot be
                used.
        """
        config = complete_config(function.name, function.config)
        return cls(spec=find_loss(function.name), formula=_FORMULAS[function.name], config=config)

    def tokens(self, logprobs: torch.Tensor, inputs: Inputs) -> torch.Tensor:
        """The loss of each token, shaped as ``logprobs``, float32."""
        return self.formula(logprobs, inputs, self.config)

    def active(self, inputs: Inputs, target_tokens: torch.Tensor) -> torch.Tensor:
        """A mask of the targets that can have a loss: bool, shaped as ``target_tokens``."""
        weighted_by = self.spec.weighted_by
        if weighted_by is None or weighted_by not in inputs:
            return torch.ones_like(target_tokens, dtype=torch.bool)
        return inputs[weighted_by] != 0


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
    ``sequence_ratio_mask`` marks; without it, over those that have an advantage. Configuration:
    ``clip_low_threshold`` (1 - 3e-4) and ``clip_high_threshold`` (1 + 4e-4), the paper's values.
    Sources: Zheng et al. 2025 (arXiv:2507.18071), clip ranges of its section 5.1;
    https://tinker-docs.thinkingmachines.ai/tinker/losses/gspo
    """
    sampled = inputs.get("sequence_ratio_mask", inputs["advantages"]) != 0
    if not bool(sampled.any()):
        return 0 * logprobs
    log_ratio = (logprobs.detach() - inputs["logprobs"])[sampled].mean()
    return _clipped_objective(torch.exp(log_ratio + logprobs - logprobs.detach()), inputs, config)


_FORMULAS: Mapping[str, Formula] = {
    formula.__name__: formula
    for formula in (cross_entropy, importance_sampling, ppo, cispo, dro, gspo)
}


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
