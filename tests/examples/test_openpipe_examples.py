"""The programs after ART's examples: they take a step on a tiny model, by ART's names alone."""

import ast
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.processes import ROOT, run
from tools.openpipe_page import rows

PROGRAMS = [
    ROOT / "examples" / name for name in ("game_2048.py", "tic_tac_toe.py", "prisoners_dilemma.py")
]
OF_ART = {row.name for row in rows() if row.verdict != "refused"}


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_a_program_takes_a_step(program: Path, tiny_model: Path, tmp_path: Path) -> None:
    options = ("--short", "--base-model", tiny_model, "--path", tmp_path / "state")
    result = run(sys.executable, program, *options, cwd=tmp_path, timeout=300)
    assert result.stdout.startswith("step 0: ")
    (folder,) = (tmp_path / "state" / "games" / "models").iterdir()
    assert [each.name for each in sorted((folder / "checkpoints").iterdir())] == ["0000", "0001"]
    assert (folder / "trajectories" / "train" / "0001.jsonl").is_file()
    assert not (tmp_path / ".art").exists()


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_a_program_uses_names_of_art_alone(program: Path) -> None:
    tree = ast.parse(program.read_text(encoding="utf-8"))
    used = set()
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="art"), attr=name):
                used.add(f"art.{name}")
            case ast.ImportFrom(module=str(module), names=aliases) if module.startswith("art"):
                used |= {f"{module}.{alias.name}" for alias in aliases}
    assert len(used) > 3
    assert used - OF_ART == set()


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_a_program_has_help_with_an_example(program: Path, tmp_path: Path) -> None:
    result = run(sys.executable, program, "--help", cwd=tmp_path)
    assert f"python examples/{program.name} --" in result.stdout
    assert "--short" in result.stdout


def load(program: Path) -> Any:
    return runpy.run_path(str(program))


@pytest.mark.parametrize(
    ("line", "pushed"),
    [
        ([0, 0, 2, 2], [4, 0, 0, 0]),
        ([2, 2, 2, 2], [4, 4, 0, 0]),
        ([4, 2, 2, 0], [4, 4, 0, 0]),
        ([2, 0, 4, 2], [2, 4, 2, 0]),
    ],
)
def test_tiles_merge_once(line: list[int], pushed: list[int]) -> None:
    game = load(PROGRAMS[0])
    assert game["push_left"](line) == pushed
    board = [line, [0] * 4, [0] * 4, [0] * 4]
    assert game["push"](board, "right")[0] == game["push_left"](line[::-1])[::-1]
    columns = [[tile, 0, 0, 0] for tile in line]
    assert [row[0] for row in game["push"](columns, "up")] == pushed
    assert [row[0] for row in game["push"](columns, "down")] == game["push_left"](line[::-1])[::-1]


@pytest.mark.parametrize(
    ("squares", "winner"),
    [
        ("a1 b1 c1", "x"),
        ("a1 a2 a3", "x"),
        ("a1 b2 c3", "x"),
        ("c1 b2 a3", "x"),
        ("a1 b1 c2", None),
    ],
)
def test_three_in_a_line_win(squares: str, winner: str | None) -> None:
    game = load(PROGRAMS[1])
    assert game["winner"](dict.fromkeys(squares.split(), "x")) == winner
    assert game["winner"]({}) is None
