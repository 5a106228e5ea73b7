"""Adapters of megatron models, as PEFT folders that any ranks can write and read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from megatron.core.models.gpt import GPTModel
from megatron.core.transformer import TransformerConfig
from torch import Tensor, distributed

from art.errors import ArtError
from art.megatron.lora.injection import adapters_of
from art.megatron.lora.layers import LinearAdapter
from art.megatron.model_support.protocol import ModelSupportHandler
from art.megatron.model_support.row_order import in_hf_order, in_trained_order
from art.megatron.model_support.vllm_lora import (
    Adapter,
    fuse_trained_experts,
    read_adapters,
    write_adapters,
)

from .folder import AdapterReader, write_folder
from .gather import gather_adapter, whole_adapter
from .layout import Place, find_places
from .peft_config import check_config, keeps_gate_and_up_apart, write_config


def export_adapter(
    model: GPTModel, handler: ModelSupportHandler, folder: Path, *, base_model: str
) -> None:
    """Write a model's adapter to a folder that PEFT loads on the Hugging Face model.

    All ranks have to call it; rank 0 writes.

    Args:
        model: This rank's part of the model.
        handler: The handler of the model's family.
        folder: Made if it does not exist.
        base_model: The base model's name or path, for whoever loads the adapter.

    Raises:
        ConfigurationError: The model has no adapters.
        CheckpointError: The folder cannot be written. All ranks raise it.
    """
    config = whole_adapter(model).config
    tensors = gather_adapter(model)
    outcome: list[ArtError | None] = [None]
    if distributed.get_rank() == 0:
        try:
            tensors = _to_peft(tensors, handler, _heads(model.config) | {"r": config.rank})
            write_folder(folder, tensors, write_config(config, base_model, tensors))
        except ArtError as error:
            outcome = [error]
    # The others wait for the file, and must not wait for one that never comes.
    distributed.broadcast_object_list(outcome, src=0)
    if outcome[0] is not None:
        raise outcome[0]


def import_adapter(
    model: GPTModel, handler: ModelSupportHandler, folder: Path, *, base_model: str
) -> None:
    """Fill a model's adapter from a PEFT folder, whatever ranks or program wrote it.

    All ranks have to call it; each reads the folder by itself. Nothing changes unless the whole
    adapter fits.

    Args:
        model: This rank's part of the model, with adapters on the same modules.
        handler: The handler of the model's family.
        folder: The folder.
        base_model: The base model's name or path. An adapter that names another is refused.

    Raises:
        ConfigurationError: The model has no adapters.
        CheckpointError: A file is missing or cut short.
        AdapterFormatError: The adapter is of another base model, rank or alpha, has tensors
            missing, unknown or of another shape, or is more than a plain LoRA adapter.
    """
    whole = whole_adapter(model)
    reader = AdapterReader(folder)
    check_config(reader.config, whole.config, base_model)
    places = find_places(
        {module: owned.shapes for module, owned in whole.modules.items()},
        reader.shapes,
        apart=keeps_gate_and_up_apart(reader.config),
    )
    reader.check(
        {place.a: place.a_shape for place in places.values()}
        | {place.b: place.b_shape for place in places.values()}
    )
    # First all that can fail.
    for place in places.values():
        if place.zero is not None:
            _read(place, reader)
    heads = _heads(model.config)
    for adapter in adapters_of(model):
        read = {module: _read(places[module], reader) for module in adapter.shapes}
        for module, matrices in in_trained_order(read, handler, heads).items():
            _fill(adapter, module, matrices)


def _read(place: Place, reader: AdapterReader) -> Adapter:
    return place.take(reader.read(place.a), reader.read(place.b))


@torch.no_grad()
def _fill(adapter: LinearAdapter, module: str, whole: Adapter) -> None:
    a, b = whole
    pair = adapter.pair(module)
    if adapter.sharded == "lora_A":
        a = adapter.shard(module, a)
    else:
        b = adapter.shard(module, b)
    pair.lora_A.copy_(a)
    pair.lora_B.copy_(b)


def _to_peft(
    tensors: Mapping[str, Tensor], handler: ModelSupportHandler, adapter_config: dict[str, Any]
) -> dict[str, Tensor]:
    adapters = in_hf_order(read_adapters(tensors, adapter_config), handler, adapter_config)
    # One adapter for gate and up of an expert is PEFT's on a parameter of all experts.
    if any(module.endswith(".gate_up_proj") for module in adapters):
        adapters = fuse_trained_experts(adapters)
    return write_adapters(adapters)


def _heads(config: TransformerConfig) -> dict[str, int]:
    groups = config.num_query_groups
    assert groups is not None  # megatron sets it
    return {"num_attention_heads": config.num_attention_heads, "num_key_value_heads": groups}
