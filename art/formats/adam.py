"""The numbers of one AdamW step: names, defaults and ranges, for client, wire and engine."""

import math
from dataclasses import dataclass, fields

from art.errors import InvalidRequestError


@dataclass(frozen=True, slots=True, kw_only=True)
class AdamParams:
    """One AdamW step (Loshchilov and Hutter 2019, arXiv:1711.05101).

    Names and defaults are those of ``tinker.AdamParams``.

    Attributes:
        learning_rate: Step size; 0 or more.
        beta1: Decay of the first moment, in [0, 1).
        beta2: Decay of the second moment, in [0, 1).
        eps: Added to the root of the second moment; 0 or more.
        weight_decay: Decoupled weight decay, times the learning rate; 0 or more.
        grad_clip_norm: Largest global norm of the gradient; 0 is no clipping.

    Raises:
        InvalidRequestError: A value is not a finite number of its range.
    """

    learning_rate: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-12
    weight_decay: float = 0.0
    grad_clip_norm: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value: object = getattr(self, field.name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            try:
                is_finite = is_number and math.isfinite(value)  # type: ignore[arg-type]
            except OverflowError as error:  # an int that no float holds
                raise InvalidRequestError(f"{field.name} is too large a number") from error
            if not is_finite:
                raise InvalidRequestError(f"{field.name} must be a finite number, not {value!r}")
            below = 1.0 if field.name in ("beta1", "beta2") else math.inf
            if not 0 <= value < below:  # type: ignore[operator]  # a number by now
                limits = "at least 0 and below 1" if below == 1 else "0 or more"
                raise InvalidRequestError(f"{field.name} must be {limits}, not {value}")
