"""A program that uses art, frozen by PyInstaller with the hook that art ships."""

import sys
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.processes import run

PROGRAM = """\
import sys
import art
from art.megatron.model_support import default_target_modules_for_model as modules
from art.megatron.model_support import handlers

print(getattr(sys, "frozen", False), art.__file__)
print("art.trajectories" in sys.modules, "Trajectory" in dir(art))
print(*modules("Qwen/Qwen3-8B"))
print(art.ArtError.__module__, art.dev.is_dedicated_mode.__name__)
try:
    handlers.QWEN3_DENSE_HANDLER
except ImportError as error:
    print(type(error).__name__, error.name)
"""
# What the program does without. It is left out so that the test takes seconds, not minutes.
EXCLUDED = [
    "torch", "megatron", "transformers", "tinker", "fastapi", "uvicorn", "starlette", "numpy",
    "peft", "accelerate", "gguf", "safetensors", "openai", "pydantic", "huggingface_hub",
    "tokenizers", "matplotlib", "google", "jinja2", "PIL",
]  # fmt: skip


def test_pyinstaller_finds_the_hook() -> None:
    hooks = {entry.value for entry in entry_points(group="pyinstaller40")}
    assert "art._pyinstaller:get_hook_dirs" in hooks
    from art._pyinstaller import get_hook_dirs

    (folder,) = get_hook_dirs()
    assert (Path(folder) / "hook-art.py").is_file()


@pytest.mark.slow
@pytest.mark.skipif(find_spec("PyInstaller") is None, reason="PyInstaller is not installed")
def test_a_frozen_program_resolves_lazy_names(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    excluded = [f"--exclude-module={name}" for name in EXCLUDED]
    freeze = (sys.executable, "-m", "PyInstaller", "--onedir", "--noconfirm", *excluded)
    env = {"PYINSTALLER_CONFIG_DIR": str(tmp_path / "cache")}
    run(*freeze, "program.py", cwd=tmp_path, timeout=300, env=env)
    (program,) = (tmp_path / "dist" / "program").glob("program*")
    result = run(program, cwd=tmp_path, inherit_env=False)
    assert result.stderr == ""
    frozen, names, modules, addresses, missing = result.stdout.splitlines()
    assert frozen.startswith(f"True {tmp_path / 'dist'}")
    assert names == "False True"
    assert modules == "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj"
    assert addresses == "art.errors is_dedicated_mode"
    assert missing in ("MissingExtraError megatron", "MissingExtraError torch")
