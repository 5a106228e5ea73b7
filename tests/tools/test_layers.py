"""The README's table of layers, made from the import contracts."""

import shutil
from pathlib import Path

import pytest

from tests.processes import ROOT, run
from tools.layers import main

CONTRACTS = """
[importlinter]
root_package = art
[importlinter:contract:layers]
name = layers
type = layers
containers = art
exhaustive = True
layers =
    # The top.
    cli | (ui)
    rl
[packages]
cli = The command
rl = Advantages
[importlinter:contract:torch]
name = torch: nowhere
type = forbidden
"""
PAGE = "# art\n\n<!-- layers:begin -->\n<!-- layers:end -->\n\nThe end.\n"
TABLE = """\
# art

<!-- layers:begin -->

| layer | package | what it is |
|---|---|---|
| 2 | `art.cli` | The command |
| 1 | `art.rl` | Advantages |

Beyond the layers:

- torch: nowhere

<!-- layers:end -->

The end.
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with two packages."""
    for package in ("cli", "rl"):
        (tmp_path / "art" / package).mkdir(parents=True)
        (tmp_path / "art" / package / "__init__.py").touch()
    (tmp_path / ".importlinter").write_text(CONTRACTS)
    (tmp_path / "README.md").write_text(PAGE)
    return tmp_path


def test_a_stale_table_is_reported_with_its_line_and_written(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--check", "--root", str(root)]) == 1
    assert capsys.readouterr().err == (
        f"{root / 'README.md'}:3: the block layers is stale: run `make tables`\n"
    )
    assert main(["--write", "--root", str(root)]) == 0
    assert (root / "README.md").read_text() == TABLE
    assert main(["--check", "--root", str(root)]) == 0


def test_a_package_that_comes_into_a_reserved_place_makes_the_table_stale(root: Path) -> None:
    (root / "README.md").write_text(TABLE)
    (root / ".importlinter").write_text(CONTRACTS.replace("rl = A", "ui = The page\nrl = A"))
    assert main(["--check", "--root", str(root)]) == 0
    (root / "art" / "ui.py").touch()
    assert main(["--check", "--root", str(root)]) == 1


@pytest.mark.parametrize(
    ("file", "before", "after", "message"),
    [
        (".importlinter", "cli = The command\n", "", "says nothing about cli"),
        (".importlinter", "cli = ", "old = Gone\ncli = ", "no layer in .importlinter has old"),
        (
            ".importlinter",
            "containers = art\n",
            "containers = other\n",
            "needs one contract of the layers",
        ),
        (".importlinter", "exhaustive = True", "exhaustive = False", "and that exhaustive"),
        ("README.md", "<!-- layers:end -->", "", "needs one line `<!-- layers:begin -->`"),
    ],
)
def test_a_table_that_cannot_be_made_says_why(
    root: Path,
    capsys: pytest.CaptureFixture[str],
    file: str,
    before: str,
    after: str,
    message: str,
) -> None:
    text = (root / file).read_text()
    (root / file).write_text(text.replace(before, after))
    assert main(["--write", "--root", str(root)]) == 1
    assert message in capsys.readouterr().err


def test_the_table_of_this_repository_is_fresh() -> None:
    assert main(["--check"]) == 0


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        ("errors.py", "from art.rl import advantages", "art.errors is not allowed to import"),
        (
            "types.py",
            "if TYPE_CHECKING:\n    from art.model import Model",
            "art.types is not allowed to import art.model",
        ),
        (
            "trajectories.py",
            "def late():\n    import torch",
            "Illegal imports of protected package torch",
        ),
        ("stray.py", "", "The following modules are not listed as layers:\n\n- art.stray"),
    ],
    ids=["upwards", "for type checkers", "in a function", "no layer"],
)
def test_the_contracts_refuse(tmp_path: Path, file: str, line: str, broken: str) -> None:
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "art", tmp_path / "art", ignore=ignore)
    shutil.copy(ROOT / ".importlinter", tmp_path)
    with (tmp_path / "art" / file).open("a") as module:
        module.write(f"\n{line}\n")
    command = ("lint-imports", "--no-cache", "--no-logo")
    program = shutil.which(command[0], path=str(ROOT / ".venv" / "bin")) or command[0]
    env = {"PYTHONPATH": str(tmp_path)}
    said = run(program, *command[1:], cwd=tmp_path, env=env, status=1).stdout
    assert broken in said
