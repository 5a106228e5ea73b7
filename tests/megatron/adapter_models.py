"""Models with adapters in this process, and in the processes that torchrun starts."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch

from art.megatron.model_support import handlers, registry

from .adapter_cases import CASES_RUN
from .adapter_reference import ALPHA, RANK, write_case
from .tiny_models import CASES, hf_config

WORKER = Path(__file__).with_name("adapter_worker.py")


class AdapterRuns(NamedTuple):
    """What four processes did with every case in every layout.

    Args:
        root: A folder for each case, with the exported adapters of each layout.
        measured: What they measured, by ``case/layout``.
    """

    root: Path
    measured: dict[str, dict[str, Any]]


def run_all(root: Path) -> AdapterRuns:
    """Run every case in every layout, in one launch of four processes.

    Args:
        root: An empty folder.

    Returns:
        What came of it.
    """
    for case in CASES_RUN:
        (root / case).mkdir()
        write_case(case, root / case)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4"]
    process = subprocess.Popen(
        [*command, str(WORKER), str(root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        output, _ = process.communicate(timeout=400)
    except subprocess.TimeoutExpired:
        # Killed, it would leave the processes that it started.
        process.terminate()
        process.wait(timeout=60)
        raise
    assert process.returncode == 0, output[-8000:]
    return AdapterRuns(root, json.loads((root / "measured.json").read_text()))


def base_model(case: str, *, base: Path | None = None, dtype: torch.dtype = torch.float32) -> Any:
    """Build a case's megatron model on this process alone.

    Args:
        case: One of ``tiny_models``.
        base: A checkpoint with its weights. Without, they are whatever was in memory.
        dtype: Of the weights.

    Returns:
        The model.
    """
    # Not before the fixture that skips without megatron.
    from art.megatron.models.build import build_model, transformer_config
    from art.megatron.weights.load import load_weights

    handler = getattr(handlers, f"{CASES[case].family.upper()}_HANDLER")
    architecture = handler.read_config(hf_config(case))
    model = build_model(architecture, transformer_config(architecture, dtype=dtype))
    if base is not None:
        load_weights(model, handler.weight_mapping(architecture), base)
    return model


def adapted_model(case: str, targets: tuple[str, ...] | None = None, **options: Any) -> Any:
    """Build a case's megatron model on this process alone, with an adapter.

    Args:
        case: One of ``tiny_models``.
        targets: What is adapted; by default all that the family adapts by default.
        options: Of :func:`base_model`.

    Returns:
        The model.
    """
    from art.megatron.lora.config import LoraConfig
    from art.megatron.lora.injection import add_adapters

    model = base_model(case, **options)
    family = CASES[case].family.upper()
    targets = targets or getattr(registry, f"{family}_SPEC").default_target_modules
    add_adapters(model, getattr(handlers, f"{family}_HANDLER"), LoraConfig(RANK, ALPHA, targets))
    return model
