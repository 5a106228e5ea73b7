"""Peak memory of loading and saving: there is never a second copy of the model.

Each measurement is a process with a checkpoint of a few hundred megabytes, mostly experts.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import save_file
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from tests.processes import ROOT, run

MEGABYTE = 10**6
MAX_FILE_BYTES = 50 * MEGABYTE
# The memory that Python, torch and gloo themselves allocate meanwhile.
SPARE = 8 * MEGABYTE
LAYOUTS = ("one by one", "stacked")
SIZES: dict[str, Any] = {
    "num_hidden_layers": 6,
    "hidden_size": 512,
    "intermediate_size": 512,
    "moe_intermediate_size": 384,
    "num_experts": 32,
    "num_experts_per_tok": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": 16_000,
    "max_position_embeddings": 64,
}


class Added(NamedTuple):
    """The peak memory that each step added to a process, and sizes to compare with; in bytes."""

    model: int
    load: int
    save: int
    checkpoint: int
    largest_tensor: int


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One model in bfloat16: experts one by one in three files, and stacked in one."""
    folder = tmp_path_factory.mktemp("checkpoints")
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        model = Qwen3MoeForCausalLM(Qwen3MoeConfig(**SIZES))
    finally:
        torch.set_default_dtype(default)
    paths = {layout: folder / layout for layout in LAYOUTS}
    model.save_pretrained(paths["one by one"], max_shard_size="100MB")
    model.config.save_pretrained(paths["stacked"])
    save_file(dict(model.state_dict()), paths["stacked"] / "model.safetensors")
    return paths


@pytest.fixture(scope="module")
def measured(
    checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Added]:
    """Load and save a layout's checkpoint, once each."""
    known: dict[str, Added] = {}

    def of(layout: str) -> Added:
        if layout not in known:
            known[layout] = measure(checkpoints[layout], tmp_path_factory.mktemp("measured"))
        return known[layout]

    return of


def measure(source: Path, folder: Path) -> Added:
    arguments = ["qwen3_moe", source, folder / "out", MAX_FILE_BYTES, folder / "measured.json"]
    # Otherwise glibc keeps freed memory, up to as much again, depending on the order of frees. The
    # memory that art uses is to be measured.
    python(
        "-m", "tests.megatron.memory_worker", *map(str, arguments), MALLOC_MMAP_THRESHOLD_="65536"
    )
    sizes = [size for path in source.glob("*.safetensors") for size in tensor_sizes(path)]
    added = json.loads((folder / "measured.json").read_text())
    return Added(**added, checkpoint=sum(sizes), largest_tensor=max(sizes))


def tensor_sizes(path: Path) -> list[int]:
    """Read the size of each tensor in bytes from the header of a safetensors file."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    header.pop("__metadata__", None)
    return [stop - start for start, stop in (entry["data_offsets"] for entry in header.values())]


def python(*arguments: str, **environment: str) -> str:
    command = (sys.executable, "-W", "ignore", *arguments)
    return run(*command, cwd=ROOT, env={"OMP_NUM_THREADS": "1", **environment}).stdout


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_loading_needs_little_memory_besides_the_model(
    measured: Callable[[str], Added], layout: str
) -> None:
    added = measured(layout)
    assert added.checkpoint > 250 * MEGABYTE
    assert added.model == pytest.approx(added.checkpoint, rel=0.05)
    assert added.load < added.checkpoint / 20


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_saving_needs_the_memory_of_one_file_and_one_tensor(
    measured: Callable[[str], Added], layout: str
) -> None:
    added = measured(layout)
    assert added.save < MAX_FILE_BYTES + added.largest_tensor + SPARE
    assert added.save > MAX_FILE_BYTES / 2, "the memory of the file was not seen"


METER = """
import sys, time
import torch
from safetensors.torch import load_file, save_file
from benchmarks.peak_memory import PeakMemory

size = 50_000_000
with PeakMemory() as allocated:
    tensor = torch.ones(size // 8, dtype=torch.int64)
    time.sleep(0.05)
    save_file({"a": tensor}, sys.argv[1])
    del tensor
with PeakMemory() as mapped:
    load_file(sys.argv[1])["a"].sum()
    time.sleep(0.05)
print(allocated.added / size, mapped.added / size)
"""


def test_the_meter_counts_allocated_memory_and_not_mapped_files(tmp_path: Path) -> None:
    allocated, mapped = map(float, python("-c", METER, str(tmp_path / "a.safetensors")).split())
    assert allocated == pytest.approx(1, abs=0.1)
    assert mapped < 0.1
