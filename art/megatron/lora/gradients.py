"""Gradients of adapters, summed over the ranks that each computed a part of them."""

from collections import defaultdict

import torch
from megatron.core import parallel_state
from torch import Tensor, distributed, nn
from torch.distributed import ProcessGroup

from .injection import adapters_of


def finalize_adapter_grads(model: nn.Module) -> None:
    """Complete the gradients of a model's adapters after the last backward pass of a step.

    Call it instead of megatron's ``finalize_model_grads``, which does not know adapters. It sums
    over tensor-parallel ranks where each has seen a part of the sequence, and over data-parallel
    ranks always. The loss of a data-parallel rank must therefore be its part of a sum: divide by
    the tokens of the whole batch, not by the rank's own. Afterwards, ranks that hold the same
    matrix hold the same gradient. All ranks must call it.

    Args:
        model: A model, or the part of one that a pipeline rank holds.
    """
    partial: dict[ProcessGroup, list[Tensor]] = defaultdict(list)
    replicas: dict[ProcessGroup, list[Tensor]] = defaultdict(list)
    data_parallel = parallel_state.get_data_parallel_group(with_context_parallel=True)
    expert_data_parallel = parallel_state.get_expert_data_parallel_group()
    for adapter in adapters_of(model):
        group = expert_data_parallel if adapter.is_expert else data_parallel
        for module in adapter.shapes:
            pair = adapter.pair(module)
            replicas[group] += [_gradient(parameter) for parameter in pair.parameters()]
            if adapter.sees_part_of_gradient:
                partial[adapter.group].append(_gradient(pair.matrix(adapter.replicated)))
    # First within a replica of the model, then over the replicas.
    for sums in (partial, replicas):
        for group, gradients in sums.items():
            _all_reduce(gradients, group)


def _gradient(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        # Another rank may have a gradient, and all ranks must take part in the sum.
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _all_reduce(gradients: list[Tensor], group: ProcessGroup) -> None:
    if group.size() == 1:
        return
    # In one message, since the gradients are many and small.
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat, group=group)
    for gradient, total in zip(
        gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True
    ):
        gradient.copy_(total.view_as(gradient))
