"""The worked example of a plug-in, from its sources to its handler: built, installed, used."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.processes import ROOT, run

EXAMPLE = ROOT / "examples" / "model_family_plugin"
Python = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's wheel, installed by pip into a folder of its own."""
    folder = tmp_path_factory.mktemp("plugin")
    build = (sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir")
    run(*build, folder, EXAMPLE, timeout=300)
    (wheel,) = folder.glob("*.whl")
    pip = (sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target")
    run(*pip, folder / "site", wheel, timeout=300)
    return folder / "site"


@pytest.fixture
def python(site: Path) -> Python:
    def run_with_plugin(*arguments: str) -> subprocess.CompletedProcess[str]:
        path = [str(site), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        environment = {"PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"}
        command = (sys.executable, "-W", "error::UserWarning:art", *arguments)
        return run(*command, timeout=300, env=environment)

    return run_with_plugin


def test_the_registry_answers_for_it_without_an_engine(python: Python) -> None:
    code = """
import sys
from art.megatron.model_support import (
    default_target_modules_for_model, get_model_support_spec, native_vllm_lora_status_for_model,
)
print(get_model_support_spec("Qwen/Qwen2.5-7B-Instruct").key)
print(*default_target_modules_for_model("Qwen/Qwen2.5-0.5B"))
print(native_vllm_lora_status_for_model("Qwen/Qwen2.5-72B"))
print({"torch", "megatron", "transformers", "art_qwen2_5.handler"} & sys.modules.keys())
"""
    assert python("-c", code).stdout.splitlines() == [
        "qwen2_5_dense",
        "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj",
        "wip",
        "set()",
    ]


def test_the_command_lists_it_with_where_it_comes_from(python: Python) -> None:
    families = json.loads(python("-m", "art.cli", "models", "--json").stdout)["families"]
    (family,) = [family for family in families if family["key"] == "qwen2_5_dense"]
    assert family["source"] == "art-qwen2-5 0.1.0"
    assert len(family["models"]) == 14
    (minimum,) = family["minimum_versions"]
    assert (minimum["distribution"], minimum["status"]) == ("transformers", "satisfied")


def test_its_handler_is_complete_and_knows_its_family(python: Python) -> None:
    if find_spec("megatron") is None:
        pytest.skip("needs the extra megatron")
    checked = python("-m", "art.cli", "models", "check", "qwen2_5_dense").stdout
    assert checked.endswith("qwen2_5_dense: nothing is missing\n")
    code = """
from megatron.core.transformer import TransformerConfig
from art.errors import ConfigurationError
from art.megatron.model_support import get_model_support_handler

handler = get_model_support_handler("Qwen/Qwen2.5-7B")
options = dict(
    num_layers=2, hidden_size=32, num_attention_heads=4, normalization="RMSNorm",
    gated_linear_unit=True, add_bias_linear=False,
)
qwen2_5 = TransformerConfig(**options, add_qkv_bias=True)
print([(family.key, family.count) for family in handler.collect_layer_families(qwen2_5)])
try:
    handler.collect_layer_families(TransformerConfig(**options))
except ConfigurationError as error:
    print(error)
"""
    assert python("-c", code).stdout.splitlines()[-2:] == [
        "[('standard_attention', 2), ('dense_mlp', 2)]",
        "a qwen2_5_dense model has add_qkv_bias=True, but this config has False",
    ]


def test_its_types_are_those_that_art_asks_for(site: Path) -> None:
    """mypy reads the installed plug-in as art's own checks read art's handlers."""
    mypy = (sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", "-p", "art_qwen2_5")
    run(*mypy, timeout=600, cwd=ROOT, env={"MYPYPATH": str(EXAMPLE / "src")})
