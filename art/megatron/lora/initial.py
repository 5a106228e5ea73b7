"""The initial values of an adapter. Axes: R rank of the adapter, I input features."""

import hashlib
import math

import torch
from torch import Tensor, nn


def initial_a(module: str, shape: tuple[int, int], seed: int) -> Tensor:
    """Draw the initial A of a module, which does not depend on the ranks.

    The distribution is PEFT's, which is that of ``torch.nn.Linear``: uniform within
    ``1 / sqrt(I)`` of zero (Kaiming, arXiv 1502.01852, with ``a = sqrt(5)``).

    Args:
        module: Hugging Face's name of the module.
        shape: ``(R, I)`` of the whole matrix.
        seed: The adapter's seed.

    Returns:
        float32 ``[R, I]``, on the CPU.
    """
    # Seeded by name, so that neither the order of the modules nor their number matters.
    digest = hashlib.sha256(f"{seed} {module}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little"))
    a_RI = torch.empty(shape, dtype=torch.float32)
    return nn.init.kaiming_uniform_(a_RI, a=math.sqrt(5), generator=generator)
