"""The whole matrices of adapters whose parts many ranks hold."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from megatron.core.models.gpt import GPTModel
from torch import Tensor, distributed

from art.errors import ConfigurationError
from art.megatron.lora.config import LoraConfig
from art.megatron.lora.injection import adapters_of
from art.megatron.lora.layers import LinearAdapter, LoraShapes
from art.megatron.model_support.vllm_lora import Adapter, write_adapters

# PEFT's model wraps the base model twice.
PREFIX = "base_model.model."


class Owned(NamedTuple):
    """The whole matrices of a Hugging Face module, and the rank that sends them."""

    shapes: LoraShapes
    rank: int


class WholeAdapter(NamedTuple):
    """What the ranks of a model hold together.

    Args:
        config: The adapter's config.
        modules: By Hugging Face name, in the order of the ranks and their layers.
    """

    config: LoraConfig
    modules: dict[str, Owned]


def whole_adapter(model: GPTModel) -> WholeAdapter:
    """Find out what the adapter of a whole model is. All ranks have to call it.

    Args:
        model: This rank's part of the model.

    Returns:
        The same on every rank.

    Raises:
        ConfigurationError: The model has no adapters.
    """
    mine = [(adapter.config, adapter.shapes) for adapter in adapters_of(model)]
    of_ranks: list[list[tuple[LoraConfig, dict[str, LoraShapes]]]]
    of_ranks = [[]] * distributed.get_world_size()
    distributed.all_gather_object(of_ranks, mine)
    config = next((config for of_rank in of_ranks for config, _ in of_rank), None)
    if config is None:
        raise ConfigurationError("the model has no adapters; add_adapters makes them")
    modules: dict[str, Owned] = {}
    for rank, of_rank in enumerate(of_ranks):
        for _, shapes_of in of_rank:
            for module, shapes in shapes_of.items():
                modules.setdefault(module, Owned(shapes, rank))
    return WholeAdapter(config, modules)


@torch.no_grad()
def gather_adapter(model: GPTModel) -> dict[str, Tensor]:
    """Bring the adapter of a whole model to rank 0. All ranks have to call it.

    Args:
        model: This rank's part of the model.

    Returns:
        On rank 0, the tensors by the names that training gives them, float32 on the CPU: A
        ``[rank, in]`` and B ``[out, rank]``. Elsewhere nothing.

    Raises:
        ConfigurationError: The model has no adapters.
    """
    modules = whole_adapter(model).modules
    me = distributed.get_rank()
    # Every rank that holds a part of a matrix takes part in putting it together; one keeps it.
    mine = {module: whole for module, whole in _whole(model) if modules[module].rank == me}
    adapters: dict[str, Adapter] = {}
    # In one order on all ranks, so that messages meet.
    for module, (shapes, rank) in modules.items():
        if me == 0:
            a, b = mine.pop(module) if rank == 0 else (_receive(s, rank, model) for s in shapes)
            adapters[PREFIX + module] = Adapter(a.cpu(), b.cpu())
        elif me == rank:
            for matrix in mine.pop(module):
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
    # NCCL wants it on the device.
    device = next(model.parameters()).device
    matrix = torch.empty(shape, dtype=torch.float32, device=device)
    distributed.recv(matrix, src=rank)
    return matrix
