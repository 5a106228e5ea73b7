"""The programs that ``megatron_weights.py`` measures, each in its own process.

    python -m benchmarks.weights_programs PROGRAM FAMILY CHECKPOINT OUTPUT

The last line of its output is the measurement, as JSON.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file

from benchmarks.peak_memory import PeakMemory


class Measured(NamedTuple):
    """One run.

    Args:
        seconds: Wall time.
        beyond_model: Peak memory without the model's weights, in bytes.
    """

    seconds: float
    beyond_model: int


def read(family: str, checkpoint: Path, output: Path) -> Measured:
    """Read every file with safetensors, into tensors that are allocated before."""
    held = _held(checkpoint)
    with PeakMemory() as peak:
        started = time.perf_counter()
        for path in _files(checkpoint):
            for name, tensor in load_file(path).items():
                held[name].copy_(tensor)
        seconds = time.perf_counter() - started
    return Measured(seconds, peak.added)


def write(family: str, checkpoint: Path, output: Path) -> Measured:
    """Write the same tensors with safetensors, as one file, and wait for the disk."""
    held = _held(checkpoint)
    output.mkdir()
    with PeakMemory() as peak:
        started = time.perf_counter()
        save_file(held, output / "model.safetensors")
        _wait_for_disk(output)
        seconds = time.perf_counter() - started
    return Measured(seconds, peak.added)


def transformers_load(family: str, checkpoint: Path, output: Path) -> Measured:
    """Build transformers' model and load it, with the weights that it only maps."""
    model_class = _model_class(family)
    with PeakMemory() as peak:
        started = time.perf_counter()
        model = model_class.from_pretrained(checkpoint, dtype="auto")
        # Weights that are only mapped are read when they are first used.
        for parameter in model.parameters():
            parameter.data.view(torch.int16).max()
        seconds = time.perf_counter() - started
    # Negative if weights are mapped.
    return Measured(seconds, max(0, peak.added - _bytes(model.parameters())))


def transformers_save(family: str, checkpoint: Path, output: Path) -> Measured:
    """Write transformers' model, and wait for the disk."""
    model = _model_class(family).from_pretrained(checkpoint, dtype="auto")
    with PeakMemory() as peak:
        started = time.perf_counter()
        model.save_pretrained(output, max_shard_size="5GB")
        _wait_for_disk(output)
        seconds = time.perf_counter() - started
    return Measured(seconds, peak.added)


def art_load(family: str, checkpoint: Path, output: Path) -> Measured:
    """Load megatron's model, which is built before."""
    from art.megatron.weights.load import load_weights

    with _one_process():
        model, mapping = _build(family, checkpoint)
        with PeakMemory() as peak:
            started = time.perf_counter()
            load_weights(model, mapping, checkpoint)
            seconds = time.perf_counter() - started
    return Measured(seconds, peak.added)


def art_save(family: str, checkpoint: Path, output: Path) -> Measured:
    """Save megatron's model, which waits for the disk."""
    from art.megatron.weights.load import load_weights
    from art.megatron.weights.save import save_checkpoint

    with _one_process():
        model, mapping = _build(family, checkpoint)
        load_weights(model, mapping, checkpoint)
        with PeakMemory() as peak:
            started = time.perf_counter()
            save_checkpoint(model, mapping, output, source=checkpoint)
            seconds = time.perf_counter() - started
    return Measured(seconds, peak.added)


PROGRAMS: dict[str, Callable[[str, Path, Path], Measured]] = {
    program.__name__: program
    for program in (read, transformers_load, art_load, write, transformers_save, art_save)
}


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def _held(checkpoint: Path) -> dict[str, torch.Tensor]:
    return {
        name: tensor.clone()
        for path in _files(checkpoint)
        for name, tensor in load_file(path).items()
    }


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _wait_for_disk(folder: Path) -> None:
    for path in _files(folder):
        with path.open("rb+") as file:
            os.fsync(file.fileno())


def _model_class(family: str) -> Any:
    import transformers

    from benchmarks.weights_models import FAMILIES

    return getattr(transformers, FAMILIES[family][0])


def _build(family: str, checkpoint: Path) -> tuple[Any, Any]:
    from art.megatron.model_support import handlers
    from art.megatron.models.build import build_model, transformer_config

    handler = getattr(handlers, f"{family.upper()}_HANDLER")
    architecture = handler.read_config(json.loads((checkpoint / "config.json").read_text()))
    model = build_model(architecture, transformer_config(architecture, dtype=torch.bfloat16))
    for parameter in model.parameters():
        parameter.data.zero_()  # so that the system gives it its memory now
    return model, handler.weight_mapping(architecture)


@contextmanager
def _one_process() -> Iterator[None]:
    """Set up a process group of this process alone, and megatron on its CPU."""
    from torch import distributed

    from art.megatron.cpu import megatron_on_cpu

    parallel_state: Any = import_module("megatron.core.parallel_state")
    # Every group that megatron makes goes through the file.
    with tempfile.TemporaryDirectory() as folder:
        distributed.init_process_group(
            "gloo", init_method=f"file://{folder}/group", rank=0, world_size=1
        )
        parallel_state.initialize_model_parallel()
        with megatron_on_cpu():
            yield
        parallel_state.destroy_model_parallel()
        distributed.destroy_process_group()


if __name__ == "__main__":
    program, family, checkpoint, output = sys.argv[1:]
    measured = PROGRAMS[program](family, Path(checkpoint), Path(output))
    print(json.dumps(measured._asdict()))
