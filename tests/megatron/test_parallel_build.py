"""Models shared by several processes: one launch of torchrun, many checks."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from .grids import GRIDS
from .test_weights import assert_same, tensors
from .tiny_models import CASES, save

ROOT = Path(__file__).parents[2]
TOKENS = 34  # sequence parallelism wants an even number
PAIRS = [
    (grid, case)
    for grid in GRIDS
    for case in CASES
    if GRIDS[grid].expert == 1 or "moe" in CASES[case].family
]


@pytest.fixture(scope="module")
def launch(tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    """The folder of the launch, and what it measured."""
    folder = tmp_path_factory.mktemp("parallel")
    (folder / "cases.json").write_text(json.dumps({n: case.family for n, case in CASES.items()}))
    for name in CASES:
        model = save(name, folder / name)
        tokens = torch.randint(97, (2, TOKENS), generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            logits = model(tokens).logits
        torch.save({"tokens": tokens, "logits": logits}, folder / name / "reference.pt")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    result = subprocess.run(
        [*torchrun, "--nproc-per-node", "4", "-m", "tests.megatron.parallel_worker", str(folder)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert result.returncode == 0, result.stderr[-6000:]
    return folder, json.loads((folder / "measured.json").read_text())


@pytest.mark.parametrize(("grid", "case"), PAIRS)
def test_logits_equal_those_of_transformers(launch, grid, case) -> None:
    measured = launch[1][grid][case]
    assert measured["ran"]
    assert measured["logits"] <= 1e-5
    assert measured["logprobs"] <= 1e-5


@pytest.mark.parametrize(("grid", "case"), PAIRS)
def test_a_checkpoint_comes_out_as_it_went_in(launch, grid, case) -> None:
    folder = launch[0]
    assert_same(tensors(folder / grid / case), tensors(folder / case))


REFUSALS = {
    "tp4": r"num_attention_heads=6 .* tensor parallelism is 4",
    "pp4": r"num_hidden_layers=2 .* pipeline parallelism is 4",
    "ep4": r"num_experts=6 .* expert parallelism is 4",
    "ep2": r"expert parallelism is 2, but the model has no routed experts",
}


@pytest.mark.parametrize("grid", REFUSALS)
def test_a_model_that_a_grid_cannot_share_is_refused(launch, grid) -> None:
    message = launch[1]["refused"][grid]
    assert re.search(REFUSALS[grid], message), message
