"""Export and import of a megatron model's adapter, as a PEFT folder that any ranks can read.

Axes: R rank of the adapter, I input and O output features of a Hugging Face module.
"""

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
from .layout import TensorSlot, find_slots
from .peft_config import check_config, keeps_gate_and_up_apart, write_config


def export_adapter(
    model: GPTModel, handler: ModelSupportHandler, folder: Path, *, base_model: str
) -> None:
    """Export a model's adapter to a folder that PEFT loads on the Hugging Face model.

    All ranks must call it; rank 0 writes.

    Args:
        model: This rank's part of the model.
        handler: The handler of the model's family.
        folder: The folder. If it exists, its adapter is replaced.
        base_model: The base model's name or path, which is written into the config.

    Raises:
        ConfigurationError: The model has no adapters.
        CheckpointError: The folder cannot be written. Raised on every rank.
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
    # The others wait until the folder is complete, or has failed.
    distributed.broadcast_object_list(outcome, src=0)
    if outcome[0] is not None:
        raise outcome[0]


def import_adapter(
    model: GPTModel, handler: ModelSupportHandler, folder: Path, *, base_model: str
) -> None:
    """Import a model's adapter from a PEFT folder, written by any ranks or program.

    All ranks must call it; each reads the folder by itself. Nothing changes unless the whole
    adapter fits.

    Args:
        model: This rank's part of the model, with adapters on the same modules.
        handler: The handler of the model's family.
        folder: The folder.
        base_model: The base model's name or path. An adapter of another is refused.

    Raises:
        ConfigurationError: The model has no adapters.
        CheckpointError: A file is missing or cut short.
        AdapterFormatError: The adapter is of another base model, rank or alpha, has tensors
            missing, unknown or of another shape, or is more than a plain LoRA adapter.
    """
    whole = whole_adapter(model)
    reader = AdapterReader(folder)
    check_config(reader.config, whole.config, base_model)
    slots = find_slots(
        {module: owned.shapes for module, owned in whole.modules.items()},
        reader.shapes,
        apart=keeps_gate_and_up_apart(reader.config),
    )
    reader.check(
        {slot.a: slot.a_shape for slot in slots.values()}
        | {slot.b: slot.b_shape for slot in slots.values()}
    )
    # Every check first, so that nothing changes if one fails.
    for slot in slots.values():
        if slot.zero is not None:
            _read(slot, reader)
    heads = _heads(model.config)
    for adapter in adapters_of(model):
        read = {module: _read(slots[module], reader) for module in adapter.shapes}
        for module, matrices in in_trained_order(read, handler, heads).items():
            _fill(adapter, module, matrices)


def _read(slot: TensorSlot, reader: AdapterReader) -> Adapter:
    return slot.take(reader.read(slot.a), reader.read(slot.b))


@torch.no_grad()
def _fill(adapter: LinearAdapter, module: str, whole: Adapter) -> None:
    a_RI, b_OR = whole
    pair = adapter.pair(module)
    # This rank's part of the sharded matrix, and all of the other.
    if adapter.sharded == "lora_A":
        a_RI = adapter.shard(module, a_RI)
    else:
        b_OR = adapter.shard(module, b_OR)
    pair.lora_A.copy_(a_RI)
    pair.lora_B.copy_(b_OR)


def _to_peft(
    tensors: Mapping[str, Tensor], handler: ModelSupportHandler, adapter_config: dict[str, Any]
) -> dict[str, Tensor]:
    adapters = in_hf_order(read_adapters(tensors, adapter_config), handler, adapter_config)
    # PEFT adapts a gate and up that share an adapter by the parameter of all experts.
    if any(module.endswith(".gate_up_proj") for module in adapters):
        adapters = fuse_trained_experts(adapters)
    return write_adapters(adapters)


def _heads(config: TransformerConfig) -> dict[str, int]:
    groups = config.num_query_groups
    assert groups is not None  # megatron sets it
    return {"num_attention_heads": config.num_attention_heads, "num_key_value_heads": groups}
