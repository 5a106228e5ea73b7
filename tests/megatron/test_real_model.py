"""A real model on megatron-core: its logits, and the example that trains it."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from art.megatron.model_support import get_model_support_handler
from tests.processes import ROOT, run

from .conftest import Measure

NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
EXAMPLE = ROOT / "examples" / "megatron_lora.py"

pytestmark = [pytest.mark.slow, pytest.mark.smollm2]


@pytest.fixture(scope="module")
def folder() -> Path:
    from art.executors.base_models import resolve_base_model

    return resolve_base_model(NAME)


def test_smollm2_has_the_logits_of_transformers(
    one_process: None, measure: Measure, folder: Path
) -> None:
    from art import megatron

    handler = get_model_support_handler(NAME)
    architecture = handler.read_config(json.loads((folder / "config.json").read_text()))
    config = megatron.transformer_config(architecture, dtype=torch.float32)
    model = megatron.build_model(architecture, config)
    megatron.load_weights(model, handler.weight_mapping(architecture), folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "The capital of France is Paris. The capital of Germany is"
    tokens = tokenizer(text, return_tensors="pt").input_ids
    with torch.no_grad():
        ours = model(tokens, torch.arange(tokens.shape[1])[None], None)
        theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(tokens).logits
    assert tokenizer.decode(ours[0, -1].argmax()) == " Berlin"
    # Its logits reach 28, where float32 has steps of 2e-6.
    difference = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    measure("SmolLM2-135M (rel.)", "logits", difference)
    assert difference <= 1e-5


@pytest.mark.parametrize("options", [["--pipeline", "2"], []])
def test_the_example_teaches_it_a_sentence(tmp_path: Path, options: list[str]) -> None:
    """On the two halves of a pipeline, and on two replicas."""
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone")
    result = run(
        *torchrun,
        "--nproc-per-node=2",
        EXAMPLE,
        *options,
        cwd=tmp_path,
        env={"OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    losses = [float(loss) for loss in re.findall(r"loss (\d+\.\d+)", result.stdout)]
    assert losses[0] > 4
    assert losses[-1] < 1
    said = dict(re.findall(r"^  (with|without) +(.*)$", result.stdout, re.MULTILINE))
    assert "Ada Fenwick" not in said["without"]
    assert said["with"].startswith("Ada Fenwick")
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()


def test_the_examples_help_shows_how_to_start_it() -> None:
    result = run(sys.executable, EXAMPLE, "--help")
    assert "torchrun --nproc-per-node 2 examples/megatron_lora.py --pipeline 2" in result.stdout
