"""Megatron models with adapters, in this process."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .adapter_reference import ALPHA, RANK
from .tiny_models import CASES, hf_config

if TYPE_CHECKING:
    from megatron.core.models.gpt import GPTModel


def base_model(
    case: str, *, base: Path | None = None, dtype: torch.dtype = torch.float32
) -> "GPTModel":
    """Build a case's megatron model on this process alone.

    Args:
        case: One of ``tiny_models``.
        base: A checkpoint with its weights; ``None`` leaves them uninitialised.
        dtype: The dtype of the weights.

    Returns:
        The model.
    """
    # Not before the fixture that skips without megatron.
    from art.megatron.models.build import build_model, transformer_config
    from art.megatron.weights.load import load_weights

    handler = CASES[case].handler
    architecture = handler.read_config(hf_config(case))
    model = build_model(architecture, transformer_config(architecture, dtype=dtype))
    if base is not None:
        load_weights(model, handler.weight_mapping(architecture), base)
    return model


def adapted_model(
    case: str,
    targets: tuple[str, ...] | None = None,
    *,
    base: Path | None = None,
    dtype: torch.dtype = torch.float32,
) -> "GPTModel":
    """Build a case's megatron model on this process alone, with an adapter.

    Args:
        case: One of ``tiny_models``.
        targets: The modules to adapt; ``None`` is the family's default.
        base: As for :func:`base_model`.
        dtype: As for :func:`base_model`.

    Returns:
        The model.
    """
    from art.megatron.lora.config import MegatronLoraConfig
    from art.megatron.lora.injection import add_adapters

    model = base_model(case, base=base, dtype=dtype)
    targets = targets or CASES[case].spec.default_target_modules
    add_adapters(model, CASES[case].handler, MegatronLoraConfig(RANK, ALPHA, targets))
    return model
