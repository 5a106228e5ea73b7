"""The config of an adapter, which does not depend on the ranks that hold it."""

import math
from dataclasses import dataclass

from art.errors import ConfigurationError


@dataclass(frozen=True)
class MegatronLoraConfig:
    """The rank, the scale, the target modules and the seed of an adapter.

    Args:
        rank: Rows of every A, columns of every B; at least 1.
        alpha: The adapter's output is multiplied by ``alpha / rank``.
        target_modules: The last part of Hugging Face's module names, such as ``"q_proj"``;
            ``"experts"`` is all routed experts.
        seed: The seed of the initial A. B starts at zero.

    Raises:
        ConfigurationError: A value is out of range.
    """

    rank: int
    alpha: float
    target_modules: tuple[str, ...]
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigurationError(f"the rank of an adapter must be at least 1, not {self.rank}")
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise ConfigurationError(f"alpha must be a positive number, not {self.alpha}")
        if not self.target_modules:
            raise ConfigurationError("target_modules is empty; name at least one module to adapt")

    @property
    def scale(self) -> float:
        """The factor on the adapter's output, ``alpha / rank``."""
        return self.alpha / self.rank
