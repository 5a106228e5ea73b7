"""``art imports``: what is loaded, what is not, what each name would load."""

import json
from importlib.util import find_spec

import pytest

from tests.processes import run_art


def art_imports(*arguments: str, status: int = 0) -> str:
    result = run_art("imports", *arguments, status=status)
    return result.stderr if status else result.stdout


def test_the_tree_shows_loaded_and_not_loaded() -> None:
    after = "from art.megatron.model_support import get_model_support_spec"
    lines = art_imports("art.megatron.model_support", "--after", after).splitlines()
    assert lines[0].startswith(f"after {after!r}: ")
    assert lines[2] == "art.megatron.model_support (loaded)"
    assert "├── registry (loaded)" in lines
    (handlers,) = [line for line in lines if line.startswith("├── handlers (")]
    assert "not loaded: " in handlers
    assert " ms, " in handlers
    (last,) = [line for line in lines if line.startswith("└── ")]
    assert last == "└── spec (loaded)"
    assert "ModelSupportSpec" in " ".join(lines[lines.index(last) + 1 :])


def test_each_branch_says_what_a_name_would_load() -> None:
    lines = art_imports("art.dev", "art.rl", "art.executors.torch", "--json").splitlines()
    branches = {each["module"]: each for each in map(json.loads, lines)}
    validate = branches["art.dev.validate"]
    assert validate["names"] == ["is_dedicated_mode", "validate_dedicated_config"]
    assert validate["loaded"] is False
    assert validate["seconds"] > 0
    assert validate["packages"] == ["lazy_loader"]
    assert "numpy" in branches["art.rl.advantages"]["packages"]
    engine = branches["art.executors.torch.executor"]
    if find_spec("torch") is None:
        assert engine["error"].startswith("MissingExtraError: ")
    else:
        assert "torch" in engine["packages"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["art.errors"], "art: art.errors is not a lazy package; choose one of art, art.cli, "),
        (["--after", "import no_such_module"], "No module named 'no_such_module'"),
    ],
)
def test_what_it_cannot_show_is_an_error(arguments: list[str], message: str) -> None:
    assert message in art_imports(*arguments, status=1)
