"""The values that an adapter starts with."""

import hashlib
import math

import torch
from torch import Tensor, nn


def initial_a(module: str, shape: tuple[int, int], seed: int) -> Tensor:
    """Draw the initial A of a module, the same whatever ranks there are.

    The distribution is PEFT's, which is that of ``torch.nn.Linear``: uniform within
    ``1 / sqrt(in)`` of zero (Kaiming, arXiv 1502.01852, with ``a = sqrt(5)``).

    Args:
        module: Hugging Face's name of the module.
        shape: ``(rank, in)`` of the whole matrix.
        seed: Of the adapter.

    Returns:
        float32, on the CPU.
    """
    # By name, so that neither the order of the modules nor their number matters.
    digest = hashlib.sha256(f"{seed} {module}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little"))
    matrix = torch.empty(shape, dtype=torch.float32)
    return nn.init.kaiming_uniform_(matrix, a=math.sqrt(5), generator=generator)
