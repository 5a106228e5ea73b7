"""The order of the rows of an adapter's B: as trained, and as Hugging Face keeps them.

Training keeps the rows in the order of megatron's fused module. If Hugging Face has another order,
a handler's ``row_order`` gives it: for each of Hugging Face's rows, the row as trained.

Axes: O output features of a module, R rank of the adapter, N heads, G groups of heads that share a
key, D dimension of a head, F intermediate size.
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
    """Reorder the rows of every B from the trained order to Hugging Face's.

    Args:
        adapters: Adapters by module, as trained.
        handler: The handler of their family.
        adapter_config: The adapter's config, with the base model's numbers of heads.

    Returns:
        Adapters by module.

    Raises:
        AdapterFormatError: A module cannot have the number of rows that it has.
    """
    ordered = {}
    for module, (a_RI, b_OR) in adapters.items():
        order_O = handler.row_order(module, b_OR.shape[0], adapter_config=adapter_config)
        ordered[module] = Adapter(a_RI, b_OR if order_O is None else b_OR[order_O])
    return ordered


def in_trained_order(
    adapters: Mapping[str, Adapter], handler: ModelSupportHandler, adapter_config: Mapping[str, Any]
) -> dict[str, Adapter]:
    """Reorder the rows of every B from Hugging Face's order to the trained one.

    The inverse of :func:`in_hf_order`.

    Args:
        adapters: Adapters by module, in Hugging Face's order.
        handler: The handler of their family.
        adapter_config: The adapter's config, with the base model's numbers of heads.

    Returns:
        Adapters by module.

    Raises:
        AdapterFormatError: A module cannot have the number of rows that it has.
    """
    ordered = {}
    for module, (a_RI, b_OR) in adapters.items():
        order_O = handler.row_order(module, b_OR.shape[0], adapter_config=adapter_config)
        ordered[module] = Adapter(a_RI, b_OR if order_O is None else b_OR[order_O.argsort()])
    return ordered


def gates_beside_queries(rows: int, heads: int, groups: int) -> Tensor:
    """Compute the row order of a gated ``q_proj``.

    Megatron keeps the queries of a group, then its gates: ``[G, 2, N / G, D]``. Hugging Face keeps
    the query of a head, then its gate: ``[N, 2, D]``.

    Args:
        rows: Number of rows O of ``q_proj``, a multiple of ``2 * heads``.
        heads: Number of heads N, a multiple of ``groups``.
        groups: Number of groups G.

    Returns:
        int64 ``[O]``: for each of Hugging Face's rows, the row as trained.
    """
    order_G2ND = torch.arange(rows).reshape(groups, 2, heads // groups, -1)
    return order_G2ND.transpose(1, 2).flatten()


def gates_beside_ups(rows: int) -> Tensor:
    """Compute the row order of an expert's interleaved ``gate_up_proj``.

    Megatron keeps all rows of gate, then all of up: ``[2, F]``. GPT-OSS interleaves them:
    ``[F, 2]``.

    Args:
        rows: Number of rows O of ``gate_up_proj``, an even number.

    Returns:
        int64 ``[O]``: for each of Hugging Face's rows, the row as trained.
    """
    return torch.arange(rows).reshape(2, -1).T.flatten()
