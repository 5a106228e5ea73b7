"""Build, run and save every family on several grids of processes. Run by torchrun.

    torchrun --nproc-per-node 4 -m tests.megatron.parallel_worker FOLDER

FOLDER holds a checkpoint of each case, with the tokens and transformers' logits. What is measured
is written to FOLDER/measured.json, and what each grid saves to FOLDER/GRID/CASE.
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
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.tensor_parallel import gather_from_tensor_model_parallel_region
from torch import Tensor, distributed

from art.errors import ConfigurationError
from art.megatron.cpu import megatron_on_cpu
from art.megatron.model_support import handlers
from art.megatron.models.build import build_model, transformer_config
from art.megatron.weights.load import load_weights
from art.megatron.weights.save import save_checkpoint

from .grids import GRIDS, REFUSED, Grid


@contextmanager
def on_grid(name: str, grid: Grid) -> Iterator[None]:
    """Join the processes in a grid.

    Megatron makes some twenty groups for each, and gloo's threads of a group live until it is
    destroyed, which only destroying all of them does.
    """
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = distributed.PrefixStore(name, distributed.TCPStore(address, port, is_master=False))
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=size)
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=grid.tensor,
        pipeline_model_parallel_size=grid.pipeline,
        expert_model_parallel_size=grid.expert,
        expert_tensor_parallel_size=grid.expert_tensor,
    )
    yield
    parallel_state.destroy_model_parallel()
    distributed.destroy_process_group()


def run_case(folder: Path, family: str, grid: Grid, output: Path) -> dict[str, float]:
    """Load a checkpoint, compare its logits, and save it again."""
    handler = getattr(handlers, f"{family.upper()}_HANDLER")
    architecture = handler.read_config(json.loads((folder / "config.json").read_text()))
    config = transformer_config(architecture, dtype=torch.float32, sequence_parallel=grid.sequence)
    model = build_model(architecture, config).eval()
    mapping = handler.weight_mapping(architecture)
    load_weights(model, mapping, folder)
    reference = torch.load(folder / "reference.pt")
    logits = run_model(model, reference["tokens"])
    save_checkpoint(model, mapping, output, source=folder)
    errors = torch.zeros(3)
    if logits is not None:
        expected = reference["logits"]
        real = logits[..., : architecture.vocab_size]
        # Over the padded vocabulary: the padding must take no probability.
        logprobs = logits.log_softmax(-1)[..., : architecture.vocab_size]
        errors[0] = (real - expected).abs().max()
        errors[1] = (logprobs - expected.log_softmax(-1)).abs().max()
        errors[2] = 1
    measured = errors.clone()
    distributed.all_reduce(measured, distributed.ReduceOp.MAX)
    return {"logits": measured[0].item(), "logprobs": measured[1].item(), "ran": measured[2].item()}


def run_model(model: Any, tokens: Tensor) -> Tensor | None:
    """The logits over the padded vocabulary, on the last ranks of the pipeline."""

    def step(iterator: object, model: Any) -> tuple[Tensor, Any]:
        positions = torch.arange(tokens.shape[1]).expand_as(tokens)
        output = model(tokens, positions, None)
        return output, lambda logits, non_loss_data: logits

    with torch.no_grad():
        collected = get_forward_backward_func()(
            forward_step_func=step,
            data_iterator=None,
            model=model,
            num_microbatches=1,
            seq_length=tokens.shape[1],
            micro_batch_size=tokens.shape[0],
            forward_only=True,
            collect_non_loss_data=True,
        )
        if not parallel_state.is_pipeline_last_stage():
            return None
        return gather_from_tensor_model_parallel_region(collected[0])


def refusal(folder: Path, family: str, grid: Grid) -> str:
    handler = getattr(handlers, f"{family.upper()}_HANDLER")
    architecture = handler.read_config(json.loads((folder / "config.json").read_text()))
    try:
        transformer_config(architecture, dtype=torch.float32)
    except ConfigurationError as error:
        return str(error)
    return ""


def main(folder: Path) -> None:
    cases: dict[str, str] = json.loads((folder / "cases.json").read_text())
    measured: dict[str, Any] = {"refused": {}}
    with megatron_on_cpu():
        for name, grid in GRIDS.items():
            with on_grid(name, grid):
                measured[name] = {
                    case: run_case(folder / case, family, grid, folder / name / case)
                    for case, family in cases.items()
                    if grid.expert == 1 or "moe" in family
                }
        for name, (grid, case) in REFUSED.items():
            with on_grid(f"refused {name}", grid):
                measured["refused"][name] = refusal(folder / case, cases[case], grid)
    if os.environ["RANK"] == "0":
        (folder / "measured.json").write_text(json.dumps(measured))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
