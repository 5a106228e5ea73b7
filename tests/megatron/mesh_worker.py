"""Load, run, save, adapt and train every case on several meshes of processes. Run by torchrun.

    torchrun --nproc-per-node 4 -m tests.megatron.mesh_worker FOLDER

FOLDER is what ``mesh_launch.py`` has written. The measurements are written to FOLDER/of_4.json, and
what is saved on a mesh to FOLDER/CASE/of_4/MESH.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from safetensors.torch import load_file
from torch import distributed
from torch._C._distributed_c10d import PrefixStore, TCPStore

from art.errors import ConfigurationError
from art.megatron.cpu import megatron_on_cpu
from art.megatron.models.build import build_model, transformer_config
from art.megatron.weights.load import load_weights
from art.megatron.weights.save import save_checkpoint

from .mesh_adapters import measure_adapters
from .mesh_step import run_step
from .meshes import MESHES, REFUSED, RUNS, Mesh, Run, trains
from .tiny_models import CASES


@contextmanager
def on_mesh(name: str, mesh: Mesh) -> Iterator[None]:
    """Join the processes in a mesh.

    Megatron makes some twenty groups for each mesh, and gloo's threads of a group live until all
    groups are destroyed.
    """
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = PrefixStore(name, TCPStore(address, port, is_master=False))
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=size)
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=mesh.tensor,
        pipeline_model_parallel_size=mesh.pipeline,
        expert_model_parallel_size=mesh.expert,
        expert_tensor_parallel_size=mesh.expert_tensor,
    )
    yield
    parallel_state.destroy_model_parallel()
    distributed.destroy_process_group()


def measure(folder: Path, run: Run, mesh: Mesh) -> dict[str, Any]:
    """Run all checks of a case on a mesh."""
    handler = CASES[run.case].handler
    architecture = handler.read_config(json.loads((folder / "base" / "config.json").read_text()))
    config = transformer_config(architecture, dtype=torch.float32, sequence_parallel=mesh.sequence)
    model = build_model(architecture, config)
    mapping = handler.weight_mapping(architecture)
    load_weights(model, mapping, folder / "base")
    output = folder / f"of_{run.processes}" / run.mesh
    output.mkdir(parents=True, exist_ok=True)
    measured = _measure_logits(model, folder, architecture.vocab_size)
    save_checkpoint(model, mapping, output / "saved", source=folder / "base")
    if trains(run.case, mesh):
        measured |= measure_adapters(model, handler, folder, output)
    return _worst(measured)


def _measure_logits(model: GPTModel, folder: Path, vocab_size: int) -> dict[str, float | None]:
    reference = load_file(folder / "base.safetensors")
    logits = run_step(model, reference["tokens"], train=False).logits
    if logits is None:
        return {"logits": None, "logprobs": None}
    # Over the padded vocabulary: the padding must take no probability.
    logprobs = logits.log_softmax(-1)[..., :vocab_size]
    expected = reference["logits"]
    return {
        "logits": (logits[..., :vocab_size] - expected).abs().max().item(),
        "logprobs": (logprobs - expected.log_softmax(-1)).abs().max().item(),
    }


def _worst(measured: dict[str, Any]) -> dict[str, Any]:
    """Combine the measurements of all ranks to the worst. ``None`` is not measured on a rank."""
    of_ranks: list[dict[str, Any]] = [{}] * distributed.get_world_size()
    distributed.all_gather_object(of_ranks, measured)
    worst: dict[str, Any] = {}
    for name in measured:
        values = [of_rank[name] for of_rank in of_ranks if of_rank[name] is not None]
        worst[name] = all(values) if isinstance(values[0], bool) else max(values)
    return worst


def refusal(folder: Path, name: str) -> str:
    """Get the error message for a model that cannot be sharded over a mesh."""
    refused = REFUSED[name]
    handler = CASES[refused.case].handler
    config = json.loads((folder / refused.case / "base" / "config.json").read_text())
    architecture = handler.read_config(config | refused.options)
    with on_mesh(f"refused {name}", refused.mesh):
        try:
            transformer_config(architecture, dtype=torch.float32)
        except ConfigurationError as error:
            return str(error)
    return ""


def main(folder: Path) -> None:
    processes = int(os.environ["WORLD_SIZE"])
    measured: dict[str, Any] = {}
    with megatron_on_cpu():
        for name, mesh in MESHES[processes].items():
            with on_mesh(name, mesh):
                for run in RUNS:
                    if (run.processes, run.mesh) == (processes, name):
                        measured[str(run)] = measure(folder / run.case, run, mesh)
        if processes == 4:
            measured["refused"] = {name: refusal(folder, name) for name in REFUSED}
    if os.environ["RANK"] == "0":
        (folder / f"of_{processes}.json").write_text(json.dumps(measured))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
