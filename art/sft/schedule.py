"""Learning rates of a run, one for each batch."""

import math
from collections.abc import Callable
from typing import Literal, TypeAlias

from art.errors import ConfigurationError

ScheduleType: TypeAlias = Literal["cosine", "linear", "constant"]


def create_lr_schedule(
    total_steps: int,
    peak_lr: float,
    method: ScheduleType = "linear",
    warmup_steps: int = 0,
    min_lr: float = 0.0,
) -> list[float]:
    """List learning rates that rise to a peak and then fall.

    Args:
        total_steps: How many.
        peak_lr: The highest.
        method: How they fall: ``"cosine"`` by half a period, ``"linear"``, or ``"constant"`` not
            at all.
        warmup_steps: How many rise linearly; the last of them is the peak.
        min_lr: What they rise from and fall to; the last one is this.

    Returns:
        The learning rates.

    Raises:
        art.errors.ConfigurationError: The method is unknown.
    """
    falls: dict[str, Callable[[float], float]] = {
        "cosine": lambda part: 0.5 * (1 + math.cos(math.pi * part)),
        "linear": lambda part: 1 - part,
        "constant": lambda _: 1.0,
    }
    if method not in falls:
        raise ConfigurationError(f"the schedule {method!r} is unknown; known: {', '.join(falls)}")
    rising = [(step + 1) / warmup_steps for step in range(min(warmup_steps, total_steps))]
    last = total_steps - warmup_steps - 1
    falling = [falls[method](step / max(last, 1)) for step in range(last + 1)]
    return [min_lr + (peak_lr - min_lr) * part for part in [*rising, *falling]]
