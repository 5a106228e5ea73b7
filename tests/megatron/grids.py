"""The grids of processes that models are shared on."""

from typing import NamedTuple

from .tiny_models import CASES


class Grid(NamedTuple):
    """How the processes share a model; those that are left over hold copies of it.

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
    expert_tensor: int = 1
    sequence: bool = False


class Run(NamedTuple):
    """A case on a grid of so many processes."""

    processes: int
    grid: str
    case: str

    def __str__(self) -> str:
        return f"{self.case}-{self.grid}-of-{self.processes}"


# By number of processes.
GRIDS = {
    2: {
        "tp2": Grid(tensor=2),
        "tp2_sp": Grid(tensor=2, sequence=True),
        "tp2_sp_etp2": Grid(tensor=2, expert_tensor=2, sequence=True),
        "pp2": Grid(pipeline=2),
        "ep2": Grid(expert=2),
    },
    4: {
        "dp4": Grid(),
        "tp2_sp_dp2": Grid(tensor=2, sequence=True),
        "tp2_sp_pp2": Grid(tensor=2, pipeline=2, sequence=True),
        "tp2_sp_ep2": Grid(tensor=2, expert=2, sequence=True),
        "tp2_sp_ep2_etp2": Grid(tensor=2, expert=2, expert_tensor=2, sequence=True),
        "pp2_ep2": Grid(pipeline=2, expert=2),
    },
}


def suits(case: str, grid: Grid) -> bool:
    """Whether a case's model has something to share in every way that a grid shares."""
    if grid.expert_tensor > 1 and CASES[case].biased_experts:
        return False
    return CASES[case].experts or (grid.expert == 1 and grid.expert_tensor == 1)


def trains(case: str, grid: Grid) -> bool:
    """Whether adapters of a case are trained on a grid.

    Megatron trains experts under tensor parallelism only with sequence parallelism.
    """
    return CASES[case].adapted and (grid.tensor == 1 or grid.sequence or not CASES[case].experts)


RUNS = [
    Run(processes, name, case)
    for processes, grids in GRIDS.items()
    for name, grid in grids.items()
    for case in CASES
    if suits(case, grid)
]
TRAINED = [run for run in RUNS if trains(run.case, GRIDS[run.processes][run.grid])]


def grids_of(case: str) -> list[Run]:
    """The grids that a case's adapters are trained on."""
    return [run for run in TRAINED if run.case == case]


class Refusal(NamedTuple):
    """A model that a grid of four processes cannot share out.

    Args:
        case: The model.
        grid: The grid.
        options: What the model's config differs by.
        message: What the error has to say: a regular expression.
    """

    case: str
    grid: Grid
    options: dict[str, int]
    message: str


REFUSED = {
    "heads": Refusal("qwen3_dense", Grid(tensor=4), {}, r"num_attention_heads=6 .* tensor .* is 4"),
    "kv heads": Refusal(
        "qwen3_dense",
        Grid(tensor=4),
        {"num_attention_heads": 8},
        r"num_key_value_heads=2 .* tensor parallelism is 4",
    ),
    "layers": Refusal(
        "qwen3_dense", Grid(pipeline=4), {}, r"num_hidden_layers=2 .* pipeline parallelism is 4"
    ),
    "experts": Refusal("qwen3_moe", Grid(expert=4), {}, r"num_experts=6 .* expert .* is 4"),
    "size of experts": Refusal(
        "qwen3_moe",
        Grid(tensor=2, expert_tensor=2, sequence=True),
        {"moe_intermediate_size": 21},
        r"moe_intermediate_size=21 .* expert tensor parallelism is 2",
    ),
    "biases of experts": Refusal(
        "gpt_oss",
        Grid(tensor=2, expert_tensor=2, sequence=True),
        {},
        r"expert tensor parallelism is 2, but experts with biases",
    ),
    "no experts": Refusal("qwen3_dense", Grid(expert=2), {}, r"is 2, but .* no routed experts"),
}
