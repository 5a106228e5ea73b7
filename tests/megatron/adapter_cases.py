"""What the tests of adapters run, on which ranks."""

from typing import NamedTuple

BASE_MODEL = "tiny/base"
FRESH_SEED = 11


class Layout(NamedTuple):
    """How four ranks share a model; those left over are data-parallel."""

    tensor: int = 1
    pipeline: int = 1
    expert: int = 1
    expert_tensor: int = 1
    sequence_parallel: bool = False


DENSE = {
    "dp4": Layout(),
    "tp2": Layout(tensor=2, expert_tensor=2),
    "tp2-sp": Layout(tensor=2, expert_tensor=2, sequence_parallel=True),
    "pp2": Layout(pipeline=2),
    "tp2-sp-pp2": Layout(tensor=2, pipeline=2, expert_tensor=2, sequence_parallel=True),
}
EXPERTS = {
    "dp4": Layout(),
    "ep2": Layout(expert=2),
    # Megatron trains experts under tensor parallelism only with sequence parallelism.
    "tp2-sp": Layout(tensor=2, expert_tensor=2, sequence_parallel=True),
    "tp2-sp-etp1": Layout(tensor=2, sequence_parallel=True),
    "tp2-sp-ep2": Layout(tensor=2, expert=2, expert_tensor=2, sequence_parallel=True),
    "tp2-sp-ep2-etp1": Layout(tensor=2, expert=2, sequence_parallel=True),
    "pp2-ep2": Layout(pipeline=2, expert=2),
}
LAYOUTS = DENSE | EXPERTS


# Of the cases of ``tiny_models``.
CASES_RUN = (
    "default_dense",
    "llama3_dense",
    "llama3_dense_tied",
    "qwen3_dense",
    "qwen3_moe",
    "qwen3_moe_mixed",
    "qwen3_5_dense",
    "qwen3_5_moe",
)


def layouts_of(case: str) -> list[str]:
    """The layouts that a case runs under."""
    return list(EXPERTS if "moe" in case else DENSE)


RUNS = [f"{case}/{layout}" for case in CASES_RUN for layout in layouts_of(case)]
