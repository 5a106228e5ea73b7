"""``art models`` and ``art models check``."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from art.megatron.model_support import (
    DEFAULT_DENSE_SPEC,
    VALIDATED_MODEL_SUPPORT_SPECS,
    ModelSupportHandler,
    ModelSupportSpec,
)

from .conftest import Run

# Plug-ins come from here, as pip would unpack them.
PLUGIN = """
from art.megatron.model_support.spec import HandlerMeta, ModelSupportSpec
SPEC = ModelSupportSpec(
    handler=HandlerMeta(key="acme_dense", handler_name="acme_handler:HANDLER"),
    model_types=("acme",),
    model_names=("acme/one",),
    default_target_modules=("q_proj",),
)
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    info = tmp_path / "acme_art-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-art\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[art.model_support]\nacme_dense = acme:SPEC\n")
    (tmp_path / "acme.py").write_text(PLUGIN)
    (tmp_path / "acme_handler.py").write_text("import torch\n")
    return tmp_path


@pytest.fixture(scope="module")
def rows() -> dict[str, list[str]]:
    """The cells of the table, by family."""
    result = subprocess.run(
        [sys.executable, "-m", "art.cli", "models"], capture_output=True, text=True, timeout=60
    )
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["FAMILY", "MOE", "VLLM", "LORA", "ENGINE", "MODELS"]
    assert max(map(len, lines)) <= 100
    return {line.split()[0]: line.split() for line in lines[1:] if line and line[0] != " "}


@pytest.mark.parametrize("spec", VALIDATED_MODEL_SUPPORT_SPECS, ids=lambda spec: spec.key)
def test_the_table_has_every_family(rows: dict[str, list[str]], spec: ModelSupportSpec) -> None:
    row = rows[spec.key]
    assert row[1] == ("yes" if spec.is_moe else "no")
    assert row[2] == spec.native_vllm_lora_status
    assert row[-1] == str(len(spec.model_names))
    assert row[3] == ("yes" if find_spec("megatron") else "no")


def test_without_all_a_line_names_the_first_models_and_counts_the_rest(art: Run) -> None:
    named = [line for line in art("models").stdout.splitlines() if line.startswith("  models")]
    for spec, line in zip(VALIDATED_MODEL_SUPPORT_SPECS, named, strict=True):
        words = line.removeprefix("  models").replace(",", " ").split()
        if "and" in words:
            assert words[-3::2] == ["and", "more"]
            rest = int(words[-2])
            words = words[:-3]
        else:
            rest = 0
        assert tuple(words) == spec.model_names[: len(spec.model_names) - rest]
        assert words


@pytest.mark.parametrize("columns", ["80", "100", "300"])
def test_every_model_and_target_module_is_there_at_any_width(art: Run, columns: str) -> None:
    result = art("models", "--all", COLUMNS=columns)
    words = result.stdout.replace(",", " ").split()
    for spec in VALIDATED_MODEL_SUPPORT_SPECS:
        assert set(spec.model_names) <= set(words)
        assert set(spec.default_target_modules) <= set(words)
        assert set(spec.model_types) <= set(words)
        minimum = spec.dependency_floor
        assert f"transformers>={minimum.transformers}" in words
        assert f"megatron-core>={minimum.megatron_core}" in words
    assert max(map(len, result.stdout.splitlines())) <= min(int(columns), 100)


def test_json_agrees_with_the_registry(art: Run) -> None:
    document = json.loads(art("models", "--json").stdout)
    families = {family["key"]: family for family in document["families"]}
    assert list(families) == [spec.key for spec in VALIDATED_MODEL_SUPPORT_SPECS]
    for spec in VALIDATED_MODEL_SUPPORT_SPECS:
        family = families[spec.key]
        assert tuple(family["models"]) == spec.model_names
        assert tuple(family["model_types"]) == spec.model_types
        assert tuple(family["target_modules"]) == spec.default_target_modules
        assert family["is_moe"] is spec.is_moe
        assert family["native_vllm_lora_status"] == spec.native_vllm_lora_status
        assert family["source"] == "art"
        minimum = {each["distribution"]: each["minimum"] for each in family["minimum_versions"]}
        for field in spec.dependency_floor.__slots__:
            assert minimum.get(field.replace("_", "-")) == getattr(spec.dependency_floor, field)
    assert document["left_out"] == []


def test_a_plugin_is_listed_with_its_source(art: Run, plugin: Path) -> None:
    result = art("models", PYTHONPATH=str(plugin))
    assert "acme_dense  " in result.stdout
    assert "acme_dense comes from acme-art 1.0" in result.stdout
    document = json.loads(art("models", "--json", PYTHONPATH=str(plugin)).stdout)
    assert document["families"][-1]["source"] == "acme-art 1.0"


def test_a_broken_plugin_is_reported_once_and_the_others_are_listed(art: Run, plugin: Path) -> None:
    (plugin / "acme.py").write_text("1 / 0")
    result = art("models", PYTHONPATH=str(plugin))
    assert result.returncode == 0
    assert "qwen3_dense" in result.stdout
    assert result.stderr.startswith("left out: acme-art 1.0: the plug-in acme_dense")
    assert result.stderr.count("ZeroDivisionError") == 1
    document = json.loads(art("models", "--json", PYTHONPATH=str(plugin)).stdout)
    assert [entry["key"] for entry in document["left_out"]] == ["acme_dense"]


@pytest.mark.parametrize(
    "key", [spec.key for spec in (DEFAULT_DENSE_SPEC, *VALIDATED_MODEL_SUPPORT_SPECS)]
)
def test_nothing_is_missing_from_arts_own_families(art: Run, key: str) -> None:
    result = art("models", "check", key)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{key}: nothing is missing" in result.stdout
    assert "stub line" in result.stdout
    if find_spec("megatron") is None:
        assert 'pip install "art-rl[megatron]"' in " ".join(result.stdout.split())


def test_check_says_what_to_write_for_a_family_that_does_not_exist(art: Run) -> None:
    result = art("models", "check", "phi4_dense")
    assert result.returncode == 1
    text = " ".join(result.stdout.split())
    assert "missing spec write PHI4_DENSE_SPEC" in text
    assert "missing handler file write handlers/phi4_dense.py" in text
    assert "from .phi4_dense import PHI4_DENSE_HANDLER as PHI4_DENSE_HANDLER" in text


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("acme_handler:HANDLER", "no_module:HANDLER", "no module 'no_module'"),
        ('"acme/one"', '"acme"', "not of the form owner/name: ['acme']"),
        ('("acme/one",)', "()", "give the spec model_names"),
        ('("acme",)', "()", "give the spec model_types"),
        ('("acme",)', '("acme", "gpt_oss")', "claims the model_type 'gpt_oss', which art has"),
        ('("q_proj",)', '("experts",)', '"experts" must be in'),
        ('"acme/one"', '"Qwen/Qwen3-8B"', "which art has"),
        ("SPEC =", "OTHER =", "has no attribute 'SPEC'"),
    ],
)
def test_check_says_what_a_plugin_lacks(
    art: Run, plugin: Path, before: str, after: str, said: str
) -> None:
    assert art("models", "check", "acme_dense", PYTHONPATH=str(plugin)).returncode in (0, 1)
    (plugin / "acme.py").write_text(PLUGIN.replace(before, after))
    result = art("models", "check", "acme_dense", PYTHONPATH=str(plugin))
    assert result.returncode == 1
    assert said in " ".join(result.stdout.split())


def test_check_says_which_members_a_handler_lacks(art: Run, plugin: Path) -> None:
    (plugin / "acme_handler.py").write_text(
        "import acme\n"
        "class Handler:\n"
        "    meta = acme.SPEC.handler\n"
        "    key = 'acme_dense'\n"
        "    def collect_layer_families(self, config): ...\n"
        "HANDLER = Handler()\n"
    )
    result = art("models", "check", "acme_dense", PYTHONPATH=str(plugin))
    assert result.returncode == 1
    text = " ".join(result.stdout.split())
    said = text.partition("Handler has no ")[2].partition(";")[0].split(", ")
    members = {name for name in vars(ModelSupportHandler) if not name.startswith("_")}
    assert set(said) == members - {"meta", "key", "collect_layer_families"}


def test_a_reader_that_closes_the_pipe_is_no_error() -> None:
    """As ``art models | head -1`` does, but at once."""
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run(
        [sys.executable, "-m", "art.cli", "models", "--json"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    os.close(writer)
    assert (result.returncode, result.stderr) == (1, "")


@pytest.mark.parametrize("command", [("models",), ("models", "check"), ("doctor",)])
def test_help_has_an_example_and_fits(art: Run, command: tuple[str, ...]) -> None:
    result = art(*command, "--help")
    assert result.returncode == 0
    assert f"examples:\n  art {' '.join(command)}" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 100
