"""Adapters for vLLM, loaded by vLLM's own published code.

``.vllm`` holds the source of the release that ``constraints.txt`` pins, without its kernels. For
each family it builds the class that serves it, on the CPU, and runs what a server runs:
``WorkerLoRAManager.add_adapter``, which reads the config, checks the names against the model's
modules, loads, packs and stacks the tensors, and activates them.

What the wrapped layers then hold, B times A, is compared with how the weights of the same model
differ when it loads a checkpoint that PEFT merged the adapter into. vLLM's loader of weights so
says which rows of its fused layers are whose. Nothing is generated: that needs the kernels. Nor
is anything sharded, and of vLLM's requirements torch and transformers are those of this
environment, not those that the release asks for.
"""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.processes import ROOT, run

from .vllm_cases import SERVED, write_case
from .vllm_faults import FAULTS

VLLM = ROOT / ".vllm"
WORKER = Path(__file__).with_name("vllm_worker.py")


@pytest.fixture(scope="module")
def loaded(one_process: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each case, with the weights that vLLM computed from every adapter."""
    if not (VLLM / "vllm").is_dir():
        pytest.skip("vLLM's source is not in .vllm; `make .vllm/.ready` brings it")
    root = tmp_path_factory.mktemp("vllm") / "cases"
    for case in SERVED:
        (root / case).mkdir(parents=True)
        write_case(case, root / case)
    environment = {
        "PYTHONPATH": str(VLLM),
        "VLLM_TARGET_DEVICE": "cpu",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CACHE_ROOT": str(root.with_name("cache")),
        "VLLM_PLUGINS": "",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }
    run(sys.executable, "-P", WORKER, root, env=environment, timeout=400)
    return root


def _refusal(folder: Path, adapter: str) -> str:
    """Get vLLM's error message for an adapter."""
    return json.loads((folder / "errors.json").read_text()).get(adapter, "")


def _differing(folder: Path, adapter: str) -> set[str]:
    """List the weights that an adapter changes in another way than PEFT does."""
    wanted, found = (load_file(folder / f"{name}.safetensors") for name in ("wanted", adapter))
    none = torch.zeros(())
    return {
        name
        for name in wanted.keys() | found.keys()
        if not _close(found.get(name, none), wanted.get(name, none))
    }


def _close(found: Tensor, wanted: Tensor) -> bool:
    # The rounding of merged weights in float32 makes a difference of 1e-8.
    return found.shape == wanted.shape and torch.allclose(found, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("written", ["served", "exported"])
@pytest.mark.parametrize("case", SERVED)
def test_vllm_adds_what_peft_merges(loaded: Path, case: str, written: str) -> None:
    assert not _refusal(loaded / case, written)
    assert _differing(loaded / case, written) == set()
    for wanted in load_file(loaded / case / "wanted.safetensors").values():
        assert wanted.abs().max() > 0.01


@pytest.mark.parametrize("case", SERVED)
def test_each_kind_of_module_can_be_adapted_without_the_others(loaded: Path, case: str) -> None:
    """An adapter of one kind changes its rows of a fused layer; together they change all."""
    wanted = load_file(loaded / case / "wanted.safetensors")
    covered = {
        name: torch.zeros(weight.shape[:-1], dtype=torch.bool) for name, weight in wanted.items()
    }
    for adapter in sorted((loaded / case / "adapters").glob("part-*")):
        assert not _refusal(loaded / case, adapter.name), adapter.name
        for name, found in load_file(loaded / case / f"{adapter.name}.safetensors").items():
            rows = found.any(-1)
            assert _close(found[rows], wanted[name][rows]), (adapter.name, name)
            covered[name] |= rows
    assert all(rows.all() for rows in covered.values())


@pytest.mark.parametrize("name", FAULTS)
def test_an_adapter_that_is_written_wrongly_is_found(loaded: Path, name: str) -> None:
    fault = FAULTS[name]
    folder = loaded / fault.case
    if fault.refusal:
        assert re.search(fault.refusal, _refusal(folder, name))
        return
    assert not _refusal(folder, name)
    differing = _differing(folder, name)
    assert all(weight.endswith(fault.weights) for weight in differing)
    for kind in fault.weights:
        assert any(weight.endswith(kind) for weight in differing)


def test_vllm_refuses_the_fused_experts_of_peft_for_qwen3_only(loaded: Path) -> None:
    assert "fused 3D MoE weights" in _refusal(loaded / "qwen3_moe", "peft")
    assert _differing(loaded / "qwen3_5_moe", "peft") == set()
