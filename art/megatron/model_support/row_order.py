"""In which order an adapter's B keeps its rows: as trained, and as Hugging Face does.

Training keeps the rows as they lie in megatron's fused module. Where Hugging Face has them in
another order, a handler's ``row_order`` says which: for each of Hugging Face's rows its number as
trained.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .protocol import ModelSupportHandler
from .vllm_lora import Adapter


def in_hf_order(
    adapters: Mapping[str, Adapter], handler: ModelSupportHandler, adapter_config: Mapping[str, Any]
) -> dict[str, Adapter]:
    """Order the rows of every B as Hugging Face does.

    Args:
        adapters: Adapters by module, as trained.
        handler: The handler of their family.
        adapter_config: The adapter's config, with the base model's numbers of heads.

    Returns:
        Adapters by module.

    Raises:
        AdapterFormatError: The rows of a module are not those of such a module.
    """
    ordered = {}
    for module, (a, b) in adapters.items():
        order = handler.row_order(module, b.shape[0], adapter_config=adapter_config)
        ordered[module] = Adapter(a, b if order is None else b[order])
    return ordered


def in_trained_order(
    adapters: Mapping[str, Adapter], handler: ModelSupportHandler, adapter_config: Mapping[str, Any]
) -> dict[str, Adapter]:
    """Order the rows of every B as training does: undo :func:`in_hf_order`.

    Args:
        adapters: Adapters by module, in Hugging Face's order.
        handler: The handler of their family.
        adapter_config: The adapter's config, with the base model's numbers of heads.

    Returns:
        Adapters by module.

    Raises:
        AdapterFormatError: The rows of a module are not those of such a module.
    """
    ordered = {}
    for module, (a, b) in adapters.items():
        order = handler.row_order(module, b.shape[0], adapter_config=adapter_config)
        ordered[module] = Adapter(a, b if order is None else b[order.argsort()])
    return ordered


def gates_beside_queries(rows: int, heads: int, groups: int) -> Tensor:
    """Say in which order a gated ``q_proj`` keeps its rows.

    Megatron has of each group of heads the queries, then the gates: ``[groups, 2, heads / groups,
    head_dim]``. Hugging Face has of each head its query, then its gate: ``[heads, 2, head_dim]``.

    Args:
        rows: Rows of ``q_proj``, a multiple of ``2 * heads``.
        heads: Number of heads, a multiple of ``groups``.
        groups: Number of groups of heads that share a key.

    Returns:
        int64 ``[rows]``.
    """
    by_group = torch.arange(rows).reshape(groups, 2, heads // groups, -1)
    return by_group.transpose(1, 2).flatten()


def gates_beside_ups(rows: int) -> Tensor:
    """Say in which order an expert's ``gate_up_proj`` keeps its rows where they take turns.

    Megatron has all rows of the gate, then all of up: ``[2, intermediate]``. GPT-OSS has of each
    its gate, then its up: ``[intermediate, 2]``.

    Args:
        rows: Rows of ``gate_up_proj``, an even number.

    Returns:
        int64 ``[rows]``.
    """
    return torch.arange(rows).reshape(2, -1).T.flatten()
