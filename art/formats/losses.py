"""The losses of the wire by name: inputs, settings and defaults. One table for client and engine.

Names, inputs and configuration keys are those of Thinking Machines' documentation,
https://tinker-docs.thinkingmachines.ai/tinker/losses and the page of each loss under it. A default
that is from elsewhere names its source. The formulas are in :mod:`art.executors.losses`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Literal

from art.errors import InvalidRequestError

LossName = Literal["importance_sampling", "ppo", "cispo", "dro", "gspo", "cross_entropy"]

_POLICY_INPUTS = ("logprobs", "advantages")


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSpec:
    """The inputs and settings of one loss.

    Attributes:
        required: Inputs that a datum must have beside ``target_tokens``, each shaped like it.
        optional: Inputs that it may have.
        defaults: Configuration keys and their defaults.
        weighted_by: The input that makes a token's loss zero, and constant, where it is zero;
            ``None`` where there is no such input.
        takes_many_targets: Whether ``target_tokens`` may be ``[T, K]``.
    """

    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    defaults: Mapping[str, float] = field(default_factory=dict)
    weighted_by: str | None = None
    takes_many_targets: bool = False

    @property
    def inputs(self) -> frozenset[str]:
        """All inputs that a datum may have."""
        return frozenset({"target_tokens", *self.required, *self.optional})

    @property
    def reads_advantages(self) -> bool:
        """True where the loss reads advantages; one that does not imitates what it is given."""
        return "advantages" in self.inputs

    @property
    def reads_context_logprobs(self) -> bool:
        """True where the sampler's logprobs count on every token, and no input masks them."""
        return "logprobs" in self.inputs and self.weighted_by is None


LOSSES: Mapping[LossName, LossSpec] = {
    "importance_sampling": LossSpec(required=_POLICY_INPUTS, weighted_by="advantages"),
    "ppo": LossSpec(
        required=_POLICY_INPUTS,
        defaults={"clip_low_threshold": 0.8, "clip_high_threshold": 1.2},
        weighted_by="advantages",
    ),
    "cispo": LossSpec(
        required=_POLICY_INPUTS,
        defaults={"clip_low_threshold": 0.0, "clip_high_threshold": 4.0},
        weighted_by="advantages",
    ),
    # beta: the value of the page's example. Its penalty counts on tokens without an advantage too.
    "dro": LossSpec(required=_POLICY_INPUTS, defaults={"beta": 0.05}),
    # Clip range: Zheng et al. 2025, "Group Sequence Policy Optimization" (arXiv:2507.18071),
    # section 5.1. Where `sequence_ratio_mask` is absent, every token with an advantage counts.
    "gspo": LossSpec(
        required=_POLICY_INPUTS,
        optional=("sequence_ratio_mask",),
        defaults={"clip_low_threshold": 1 - 3e-4, "clip_high_threshold": 1 + 4e-4},
        weighted_by="advantages",
    ),
    "cross_entropy": LossSpec(
        optional=("weights",), weighted_by="weights", takes_many_targets=True
    ),
}


def find_loss(name: str) -> LossSpec:
    """Look a loss up by name.

    Raises:
        InvalidRequestError: There is none; names near ones.
    """
    for known, spec in LOSSES.items():
        if known == name:
            return spec
    near = get_close_matches(name, LOSSES, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise InvalidRequestError(f"unknown loss {name!r}; known: {', '.join(LOSSES)}.{hint}")


def complete_config(name: str, config: Mapping[str, float]) -> dict[str, float]:
    """Fill a loss's configuration with its defaults.

    Args:
        name: The loss.
        config: The keys that were set.

    Returns:
        A value for every key that the loss has.

    Raises:
        InvalidRequestError: The loss or a key is unknown, or a value cannot be used.
    """
    spec = find_loss(name)
    if unknown := sorted(set(config) - set(spec.defaults)):
        known = ", ".join(sorted(spec.defaults)) or "none"
        raise InvalidRequestError(
            f"loss {name!r} has no configuration key {unknown[0]!r}; it takes: {known}"
        )
    complete = {**spec.defaults, **config}
    for key, value in complete.items():
        if not 0 <= value < math.inf:
            raise InvalidRequestError(f"{key} of loss {name!r} must be 0 or more, not {value}")
    if complete.get("clip_low_threshold", 0.0) > complete.get("clip_high_threshold", 0.0):
        raise InvalidRequestError(
            f"clip_low_threshold {complete['clip_low_threshold']} of loss {name!r} is above "
            f"clip_high_threshold {complete['clip_high_threshold']}; both bound the ratio p/q "
            "itself"
        )
    return complete
