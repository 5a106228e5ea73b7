"""The ``art`` command, run as a user runs it."""

import subprocess
import sys
from importlib.metadata import version

import pytest


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "art.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("command", [[], ["serve"]])
def test_help_has_an_example(command):
    ran = run(*command, "--help")
    assert ran.returncode == 0
    assert "example" in ran.stdout
    assert "art serve HuggingFaceTB/SmolLM2-135M-Instruct" in ran.stdout


def test_version():
    assert run("--version").stdout == f"art {version('art-rl')}\n"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "required: COMMAND"),
        (["train"], "invalid choice"),
        (["serve"], "required: BASE_MODEL"),
        (["serve", "m", "--port", "70000"], "not between 0 and 65535"),
        (["serve", "m", "--dtype", "int8"], "invalid choice: 'int8'"),
    ],
)
def test_wrong_usage_is_explained(arguments, text):
    ran = run(*arguments)
    assert ran.returncode == 2
    assert text in ran.stderr


def test_help_loads_no_engine():
    script = (
        "import sys; from art.cli.program import main\n"
        "try: main(['serve', '--help'])\n"
        "except SystemExit: pass\n"
        "engines = {'torch', 'transformers', 'tinker', 'fastapi', 'uvicorn', 'numpy', 'pydantic'}\n"
        "loaded = engines & {name.partition('.')[0] for name in sys.modules}\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_an_unknown_base_model_is_an_error_of_one_line(tmp_path):
    pytest.importorskip("torch")
    ran = run("serve", str(tmp_path), "--root", str(tmp_path / "root"))
    assert ran.returncode == 1
    assert f"art: {tmp_path} is a folder without config.json" in ran.stderr
    assert "Traceback" not in ran.stderr
