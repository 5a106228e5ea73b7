"""The meshes of processes over which models are sharded."""

from typing import NamedTuple

from .tiny_models import CASES


class Mesh(NamedTuple):
    """The sizes of the axes of parallelism; the remaining factor is data parallelism.

    Args:
        tensor: Tensor parallelism.
        pipeline: Pipeline parallelism.
        expert: Expert parallelism.
        expert_tensor: Tensor parallelism of the experts.
        sequence: True for sequence parallelism.
    """

    tensor: int = 1
    pipeline: int = 1
    expert: int = 1
    expert_tensor: int = 1
    sequence: bool = False


class Run(NamedTuple):
    """A case on a mesh of a number of processes."""

    processes: int
    mesh: str
    case: str

    def __str__(self) -> str:
        return f"{self.case}-{self.mesh}-of-{self.processes}"


# By number of processes.
MESHES = {
    2: {
        "tp2": Mesh(tensor=2),
        "tp2_sp": Mesh(tensor=2, sequence=True),
        "tp2_sp_etp2": Mesh(tensor=2, expert_tensor=2, sequence=True),
        "pp2": Mesh(pipeline=2),
        "ep2": Mesh(expert=2),
    },
    4: {
        "dp4": Mesh(),
        "tp2_sp_dp2": Mesh(tensor=2, sequence=True),
        "tp2_sp_pp2": Mesh(tensor=2, pipeline=2, sequence=True),
        "tp2_sp_ep2": Mesh(tensor=2, expert=2, sequence=True),
        "tp2_sp_ep2_etp2": Mesh(tensor=2, expert=2, expert_tensor=2, sequence=True),
        "pp2_ep2": Mesh(pipeline=2, expert=2),
    },
}


def suits(case: str, mesh: Mesh) -> bool:
    """Test whether every axis of a mesh shards a case's model."""
    if mesh.expert_tensor > 1 and CASES[case].biased_experts:
        return False
    return CASES[case].experts or (mesh.expert == 1 and mesh.expert_tensor == 1)


def trains(case: str, mesh: Mesh) -> bool:
    """Test whether adapters of a case are trained on a mesh.

    Megatron trains experts under tensor parallelism only with sequence parallelism.
    """
    return CASES[case].adapted and (mesh.tensor == 1 or mesh.sequence or not CASES[case].experts)


RUNS = [
    Run(processes, name, case)
    for processes, meshes in MESHES.items()
    for name, mesh in meshes.items()
    for case in CASES
    if suits(case, mesh)
]
TRAINED = [run for run in RUNS if trains(run.case, MESHES[run.processes][run.mesh])]


def runs_of(case: str) -> list[Run]:
    """List the runs in which a case's adapters are trained."""
    return [run for run in TRAINED if run.case == case]


class Refusal(NamedTuple):
    """A model that cannot be sharded over a mesh of four processes.

    Args:
        case: The model.
        mesh: The mesh.
        options: The differences of the model's config.
        message: A regular expression for the error message.
    """

    case: str
    mesh: Mesh
    options: dict[str, int]
    message: str


REFUSED = {
    "heads": Refusal("qwen3_dense", Mesh(tensor=4), {}, r"num_attention_heads=6 .* tensor .* is 4"),
    "kv heads": Refusal(
        "qwen3_dense",
        Mesh(tensor=4),
        {"num_attention_heads": 8},
        r"num_key_value_heads=2 .* tensor parallelism is 4",
    ),
    "layers": Refusal(
        "qwen3_dense", Mesh(pipeline=4), {}, r"num_hidden_layers=2 .* pipeline parallelism is 4"
    ),
    "experts": Refusal("qwen3_moe", Mesh(expert=4), {}, r"num_experts=6 .* expert .* is 4"),
    "size of experts": Refusal(
        "qwen3_moe",
        Mesh(tensor=2, expert_tensor=2, sequence=True),
        {"moe_intermediate_size": 21},
        r"moe_intermediate_size=21 .* expert tensor parallelism is 2",
    ),
    "biases of experts": Refusal(
        "gpt_oss",
        Mesh(tensor=2, expert_tensor=2, sequence=True),
        {},
        r"expert tensor parallelism is 2, but experts with biases",
    ),
    "no experts": Refusal("qwen3_dense", Mesh(expert=2), {}, r"is 2, but .* no routed experts"),
}
