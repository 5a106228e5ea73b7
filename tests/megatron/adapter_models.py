"""Models with adapters in this process."""

from pathlib import Path
from typing import Any

import torch

from art.megatron.model_support import get_model_support_handler_for_spec

from .adapter_reference import ALPHA, RANK
from .tiny_models import CASES, hf_config


def base_model(case: str, *, base: Path | None = None, dtype: torch.dtype = torch.float32) -> Any:
    """Build a case's megatron model on this process alone.

    Args:
        case: One of ``tiny_models``.
        base: A checkpoint with its weights. Without, they are whatever was in memory.
        dtype: Of the weights.

    Returns:
        The model.
    """
    # Not before the fixture that skips without megatron.
    from art.megatron.models.build import build_model, transformer_config
    from art.megatron.weights.load import load_weights

    handler = get_model_support_handler_for_spec(CASES[case].spec)
    architecture = handler.read_config(hf_config(case))
    model = build_model(architecture, transformer_config(architecture, dtype=dtype))
    if base is not None:
        load_weights(model, handler.weight_mapping(architecture), base)
    return model


def adapted_model(case: str, targets: tuple[str, ...] | None = None, **options: Any) -> Any:
    """Build a case's megatron model on this process alone, with an adapter.

    Args:
        case: One of ``tiny_models``.
        targets: What is adapted; by default all that the family adapts by default.
        options: Of :func:`base_model`.

    Returns:
        The model.
    """
    from art.megatron.lora.config import LoraConfig
    from art.megatron.lora.injection import add_adapters

    model = base_model(case, **options)
    spec = CASES[case].spec
    config = LoraConfig(RANK, ALPHA, targets or spec.default_target_modules)
    add_adapters(model, get_model_support_handler_for_spec(spec), config)
    return model
