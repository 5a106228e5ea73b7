"""Load a checkpoint and save it again, in a process of its own, and measure the memory of each.

    python -m tests.megatron.memory_worker FAMILY SOURCE TARGET MAX_FILE_BYTES MEASURED

The measurements are written to the file MEASURED, as JSON, in bytes.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from megatron.core import parallel_state
from torch import distributed
from torch._C._distributed_c10d import HashStore

from art.megatron.cpu import megatron_on_cpu
from art.megatron.models.build import build_model, transformer_config
from art.megatron.weights.load import load_weights
from art.megatron.weights.save import save_checkpoint
from benchmarks.peak_memory import PeakMemory

from .tiny_models import family_handler


@contextmanager
def one_process() -> Iterator[None]:
    """A process group of this process alone."""
    store = HashStore()
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    parallel_state.initialize_model_parallel()
    with megatron_on_cpu():
        yield
    parallel_state.destroy_model_parallel()
    distributed.destroy_process_group()


def main(family: str, source: Path, target: Path, max_file_bytes: int) -> dict[str, int]:
    handler = family_handler(family)
    architecture = handler.read_config(json.loads((source / "config.json").read_text()))
    mapping = handler.weight_mapping(architecture)
    config = transformer_config(architecture, dtype=torch.bfloat16)
    with PeakMemory() as building:
        model = build_model(architecture, config)
        for parameter in model.parameters():
            parameter.data.zero_()  # so that the system gives it its memory now
    with PeakMemory() as loading:
        load_weights(model, mapping, source)
    with PeakMemory() as saving:
        save_checkpoint(model, mapping, target, source=source, max_file_bytes=max_file_bytes)
    return {"model": building.added, "load": loading.added, "save": saving.added}


if __name__ == "__main__":
    family, source, target, max_file_bytes, measured = sys.argv[1:]
    with one_process():
        added = main(family, Path(source), Path(target), int(max_file_bytes))
    Path(measured).write_text(json.dumps(added))
