"""Paths: names that are safe as a folder on every system, and the folders of checkpoints."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from art.errors import ConfigurationError
from art.runs.paths import checkpoint_dir, checkpoint_steps, model_dir, path_component

UNSAFE = [
    "",
    ".",
    "..",
    "...",
    "a/b",
    "../a",
    "a\\b",
    "/",
    "C:",
    "a\0",
    "a\n",
    "a\x7f",
    "a\u2028",
    "a:b",
    "a*",
    "a?",
    'a"',
    "<a>",
    "a|b",
    "a.",
    "a ",
    " a",
    "NUL",
    "con",
    "com1.txt",
    "x" * 201,
    "é" * 101,
    "\ud800",
]


@pytest.mark.parametrize("name", UNSAFE, ids=ascii)
def test_unsafe_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="split"):
        path_component("split", name)


@pytest.mark.parametrize("name", ["a", "model-001", "v1.2_x", "été", "模型", "a b", "x@3", ".art"])
def test_usual_names_are_taken(name: str) -> None:
    assert path_component("model", name) == name


@given(st.text(max_size=8))
def test_a_taken_name_is_one_component_inside_its_folder(name: str) -> None:
    try:
        folder = model_dir("base", "project", name)
    except ConfigurationError:
        return
    assert folder.parts == ("base", "project", "models", name)
    assert folder.resolve().parent == Path("base/project/models").resolve()


def test_only_folders_named_by_a_number_are_checkpoints(tmp_path: Path) -> None:
    assert checkpoint_steps(tmp_path) == []
    for step in (12, 2, 10000):
        checkpoint_dir(tmp_path, step).mkdir(parents=True)
    (tmp_path / "checkpoints" / "0003").touch()
    (tmp_path / "checkpoints" / "0004.tmp").mkdir()
    (tmp_path / "checkpoints" / "²").mkdir()
    assert checkpoint_steps(tmp_path) == [2, 12, 10000]
    assert checkpoint_dir(tmp_path, 2).name == "0002"
