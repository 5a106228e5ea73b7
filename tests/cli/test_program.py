"""The ``art`` command, run as a user runs it."""

from importlib.metadata import version
from pathlib import Path

import pytest

from tests.processes import run_art, run_python


@pytest.mark.parametrize("command", [[], ["serve"]], ids=["art", "art serve"])
def test_help_has_an_example(command: list[str]) -> None:
    said = run_art(*command, "--help").stdout
    assert "example" in said
    assert "art serve HuggingFaceTB/SmolLM2-135M-Instruct" in said


def test_the_version_is_that_of_the_distribution() -> None:
    assert run_art("--version").stdout == f"art {version('art-rl')}\n"


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
def test_wrong_usage_is_explained(arguments: list[str], text: str) -> None:
    assert text in run_art(*arguments, status=2).stderr


def test_help_loads_no_engine() -> None:
    code = """
        import sys
        from art.cli.program import main
        try:
            main(["serve", "--help"])
        except SystemExit:
            pass
        print(*{name.partition(".")[0] for name in sys.modules})
    """
    engines = {"torch", "transformers", "tinker", "fastapi", "uvicorn", "numpy", "pydantic"}
    assert not engines & set(run_python(code).stdout.splitlines()[-1].split())


def test_an_unknown_base_model_is_an_error_of_one_line(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    said = run_art("serve", tmp_path, "--root", tmp_path / "root", status=1).stderr
    assert f"art: {tmp_path} is a folder without config.json" in said
    assert "Traceback" not in said
