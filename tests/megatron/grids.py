"""The grids of four processes that models are shared on."""

from typing import NamedTuple


class Grid(NamedTuple):
    """How the processes share a model; those that are left over are copies.

    Args:
        tensor: Tensor parallelism.
        pipeline: Pipeline parallelism.
        expert: Expert parallelism.
        expert_tensor: Tensor parallelism of the experts.
        sequence: Whether the sequence is shared too.
    """

    tensor: int = 1
    pipeline: int = 1
    expert: int = 1
    expert_tensor: int | None = None
    sequence: bool = False


GRIDS = {
    "tp2": Grid(tensor=2),
    "tp2_sp": Grid(tensor=2, sequence=True),
    "pp2": Grid(pipeline=2),
    "ep2": Grid(expert=2),
    "tp2_pp2": Grid(tensor=2, pipeline=2, sequence=True),
    "tp2_ep2": Grid(tensor=2, expert=2, sequence=True),
    "tp2_ep2_etp1": Grid(tensor=2, expert=2, expert_tensor=1, sequence=True),
}
# What no grid can share out: each is refused, by the name of the field.
REFUSED = {
    "tp4": (Grid(tensor=4), "qwen3_dense"),
    "pp4": (Grid(pipeline=4), "qwen3_dense"),
    "ep4": (Grid(expert=4), "qwen3_moe"),
    "ep2": (Grid(expert=2), "qwen3_dense"),
}
