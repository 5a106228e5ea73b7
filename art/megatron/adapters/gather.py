"""Gathering of adapters, whose matrices are sharded over ranks.

Axes: R rank of the adapter, I input and O output features of a Hugging Face module.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from megatron.core.models.gpt import GPTModel
from torch import Tensor, distributed

from art.errors import ConfigurationError
from art.megatron.lora.config import MegatronLoraConfig
from art.megatron.lora.injection import adapters_of
from art.megatron.lora.layers import LinearAdapter, LoraShapes
from art.megatron.model_support.vllm_lora import Adapter, write_adapters

# The prefix of module names in PEFT, whose model wraps the base model twice.
PREFIX = "base_model.model."


class Owned(NamedTuple):
    """The shapes of a Hugging Face module's matrices, and the rank that sends them."""

    shapes: LoraShapes
    rank: int


class WholeAdapter(NamedTuple):
    """The adapter of a whole model, which the ranks hold together.

    Args:
        config: The adapter's config.
        modules: By Hugging Face name, in the order of the ranks and their layers.
    """

    config: MegatronLoraConfig
    modules: dict[str, Owned]


def whole_adapter(model: GPTModel) -> WholeAdapter:
    """Describe the adapter of a whole model. All ranks must call it.

    Args:
        model: This rank's part of the model.

    Returns:
        The same on every rank.

    Raises:
        ConfigurationError: The model has no adapters.
    """
    own = [(adapter.config, adapter.shapes) for adapter in adapters_of(model)]
    held_by_rank: list[list[tuple[MegatronLoraConfig, dict[str, LoraShapes]]]]
    held_by_rank = [[]] * distributed.get_world_size()
    distributed.all_gather_object(held_by_rank, own)
    config = next((config for held in held_by_rank for config, _ in held), None)
    if config is None:
        raise ConfigurationError("the model has no adapters; call add_adapters first")
    modules: dict[str, Owned] = {}
    for rank, held in enumerate(held_by_rank):
        for _, shapes_by_module in held:
            for module, shapes in shapes_by_module.items():
                modules.setdefault(module, Owned(shapes, rank))
    return WholeAdapter(config, modules)


@torch.no_grad()
def gather_adapter(model: GPTModel) -> dict[str, Tensor]:
    """Gather the adapter of a whole model on rank 0. All ranks must call it.

    Args:
        model: This rank's part of the model.

    Returns:
        On rank 0, the tensors by the names that training gives them, float32 on the CPU: A
        ``[R, I]`` and B ``[O, R]``. On other ranks an empty dict.

    Raises:
        ConfigurationError: The model has no adapters.
    """
    modules = whole_adapter(model).modules
    own_rank = distributed.get_rank()
    # 1. Every rank that holds a part of a matrix takes part in assembling it; one of them keeps it.
    owned = {module: whole for module, whole in _whole(model) if modules[module].rank == own_rank}
    adapters: dict[str, Adapter] = {}
    # 2. Each owner sends its matrices to rank 0, in the same order on all ranks.
    for module, (shapes, rank) in modules.items():
        if own_rank == 0:
            a_RI, b_OR = (
                owned.pop(module)
                if rank == 0
                else (_receive(shape, rank, model) for shape in shapes)
            )
            adapters[PREFIX + module] = Adapter(a_RI.cpu(), b_OR.cpu())
        elif own_rank == rank:
            for matrix in owned.pop(module):
                distributed.send(matrix.contiguous(), dst=0)
    return write_adapters(adapters)


def _whole(model: GPTModel) -> Iterator[tuple[str, Adapter]]:
    for adapter in adapters_of(model):
        for module in adapter.shapes:
            pair = adapter.pair(module)
            sharded = _gather(adapter, module, pair.matrix(adapter.sharded).detach())
            replicated = pair.matrix(adapter.replicated).detach()
            a_is_sharded = adapter.sharded == "lora_A"
            yield (
                module,
                Adapter(sharded, replicated) if a_is_sharded else Adapter(replicated, sharded),
            )


def _gather(adapter: LinearAdapter, module: str, part: Tensor) -> Tensor:
    size = adapter.group.size()
    if size == 1:
        return adapter.unshard(module, [part])
    parts = [torch.empty_like(part) for _ in range(size)]
    distributed.all_gather(parts, part.contiguous(), group=adapter.group)
    return adapter.unshard(module, parts)


def _receive(shape: tuple[int, int], rank: int, model: GPTModel) -> Tensor:
    # NCCL needs it on the device.
    device = next(model.parameters()).device
    matrix = torch.empty(shape, dtype=torch.float32, device=device)
    distributed.recv(matrix, src=rank)
    return matrix
