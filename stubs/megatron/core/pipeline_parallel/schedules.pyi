from collections.abc import Callable
from typing import Any

from torch import nn

def get_forward_backward_func(
    pp_size: int | None = None, vp_size: int | None = None
) -> Callable[..., list[Any]]: ...
def forward_backward_no_pipelining(
    *,
    forward_step_func: Callable[..., Any],
    data_iterator: object,
    model: nn.Module | list[nn.Module],
    num_microbatches: int,
    seq_length: int,
    micro_batch_size: int,
    decoder_seq_length: int | None = None,
    forward_only: bool = False,
    collect_non_loss_data: bool = False,
    first_val_step: bool | None = None,
    adjust_tensor_shapes_fn: Callable[..., Any] | None = None,
    p2p_communicator: object = None,
    pg_collection: object = None,
    force_all_reduce: bool | None = False,
) -> list[Any]: ...
def forward_backward_pipelining_without_interleaving(
    *,
    forward_step_func: Callable[..., Any],
    data_iterator: object,
    model: nn.Module | list[nn.Module],
    num_microbatches: int,
    seq_length: int,
    micro_batch_size: int,
    decoder_seq_length: int | None = None,
    forward_only: bool = False,
    collect_non_loss_data: bool = False,
    first_val_step: bool | None = None,
    adjust_tensor_shapes_fn: Callable[..., Any] | None = None,
    p2p_communicator: object = None,
    pg_collection: object = None,
    force_all_reduce: bool | None = False,
) -> list[Any]: ...
