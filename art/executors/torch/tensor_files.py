"""Tensors by name, as safetensors files."""

from collections.abc import Mapping
from pathlib import Path

import torch

from art.errors import CheckpointError


def read_tensors(file: Path) -> dict[str, torch.Tensor]:
    """Read a file's tensors to the CPU.

    Raises:
        CheckpointError: It is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read {file}: {error}") from error


def write_tensors(file: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors of any device to a file. The caller makes the write atomic.

    Raises:
        CheckpointError: It cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(on_cpu, file, metadata={"format": "pt"})
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot write {file}: {error}") from error
