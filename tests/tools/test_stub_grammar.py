"""The stubs of lazy packages: every defect is found at its place, by ruff or by tools/."""

import re
import shutil
from pathlib import Path

import pytest

from tests.processes import ROOT, run
from tools.stub_grammar import check_stub, main

RUFF = ("ruff", "check", "--no-cache", "--output-format=concise", "--config", "tools/stubs.toml")
INIT = (ROOT / "art" / "__init__.py").read_text(encoding="utf-8")
STUBS = sorted((ROOT / "art").rglob("__init__.pyi"))
STUB = """\
# What the shop sells.
from . import tools as tools
from .fruit import Apple as Apple
from .fruit import Pear as Pear
"""
FORM = "write `from .module import Name as Name`, not "


@pytest.fixture
def stub(tmp_path: Path) -> Path:
    """The stub of a lazy package `shop`."""
    package = tmp_path / "shop"
    (package / "tools").mkdir(parents=True)
    for init in (package, package / "tools"):
        (init / "__init__.py").write_text(INIT)
    (package / "fruit.py").write_text("class Apple: ...\nclass Pear: ...\n")
    (package / "basket.py").write_text("class Basket: ...\n")
    (package / "__init__.pyi").write_text(STUB)
    return package / "__init__.pyi"


def ruff(stub: Path, *options: str, status: int | None = 0) -> str:
    """Run ruff as the hook does, on another stub; return what it says."""
    program = shutil.which("ruff", path=str(ROOT / ".venv" / "bin")) or "ruff"
    return run(program, *RUFF[1:], *options, stub, status=status, cwd=ROOT).stdout


def faults(stub: Path) -> list[tuple[int, str]]:
    """The places and messages of both, as `make check` shows them."""
    said = ruff(stub, status=None)
    by_ruff = re.findall(rf"^{re.escape(str(stub))}:(\d+):\d+: (.*)$", said, re.MULTILINE)
    by_tool = [(fault.line, fault.message) for fault in check_stub(stub)]
    return [(int(line), message) for line, message in by_ruff] + by_tool


@pytest.mark.parametrize("stub", STUBS, ids=lambda stub: stub.parent.relative_to(ROOT).as_posix())
def test_every_lazy_package_of_art_is_right(stub: Path) -> None:
    assert list(check_stub(stub)) == []
    lines = stub.with_suffix(".py").read_text(encoding="utf-8").split()
    guard = " ".join(lines).partition(", guard=")[2].removesuffix(" )")
    # A guard is called before a name is loaded, by its address.
    assert re.fullmatch(r'("art(\.\w+)+:\w+")?', guard)
    assert "".join(lines).replace(f",guard={guard}", "") == "".join(INIT.split())


def test_a_right_stub_has_no_fault(stub: Path) -> None:
    assert faults(stub) == []


def test_a_name_may_come_from_a_package_above(stub: Path) -> None:
    inner = stub.parent / "tools" / "__init__.pyi"
    inner.write_text("from ..fruit import Apple as Apple\n")
    assert faults(inner) == []
    inner.write_text("from ..fruit import Plum as Plum\n")
    assert faults(inner) == [(1, "`..fruit` does not define `Plum`")]


# What line 5 of the stub says, and how that is reported. `lazy_loader.attach_stub` takes those
# marked "silent" without a word and does something else; the others it refuses, or not, without
# saying where.
DEFECTS = {
    "alias (silent)": ("from .fruit import Apple as Obst", FORM),
    "no alias": ("from .basket import Basket", "`.basket.Basket` imported but unused"),
    "type checking guard (silent)": ("if TYPE_CHECKING:\n    x: int", FORM),
    "version guard (silent)": (
        "if sys.version_info >= (3, 12):\n    from .fruit import Apple as Apple\n"
        "else:\n    from .fruit import Pear as Apple",
        FORM,
    ),
    "class body (silent)": ("class Shelf:\n    from .fruit import Apple as Apple", FORM),
    "function": ("def weigh() -> int: ...", FORM),
    "constant": ("PRICE: int = 1", FORM),
    "duplicate (silent)": ("from .fruit import Pear as Pear", "Redefinition of unused `Pear`"),
    "two addresses (silent)": ("from .tools import Pear as Pear", "Redefinition of unused `Pear`"),
    "__all__ (silent)": ("__all__ = ['Apple']", FORM),
    "absolute import": ("from shop.fruit import Apple as Apple", FORM),
    "typing": ("from typing import Any as Any", FORM),
    "plain import": ("import os", FORM),
    "outer package": ("from ..fruit import Plum as Plum", "there is no module `..fruit`"),
    "outer package itself": ("from .. import fruit as fruit", "name the module that it comes from"),
    "star": ("from .fruit import *", FORM),
    "name of its module (silent)": ("from .fruit import fruit as fruit", "also a submodule"),
    "name of another module (silent)": ("from .fruit import tools as tools", "also a submodule"),
    "not ASCII": ("from .fruit import Äpfel as Äpfel", FORM),
    "two names": ("from .fruit import Apple as Apple, Pear as Pear", FORM),
    "parentheses": ("from .fruit import (\n    Apple as Apple,\n)", FORM),
    "two statements": ("from .fruit import A as A; x = 1", FORM),
    "comment behind": ("from .fruit import Apple as Apple  # red", FORM),
    "docstring": ('"""The shop."""', FORM),
    "syntax": ("from .fruit import", "Expected one or more symbol names after import"),
    "no such name (silent)": ("from .fruit import Plum as Plum", "does not define `Plum`"),
    "no such module (silent)": ("from .vegetables import Leek as Leek", "no module `.vegetables`"),
    "no such submodule (silent)": ("from . import cellar as cellar", "no submodule `cellar`"),
}


@pytest.mark.parametrize(("line", "message"), DEFECTS.values(), ids=DEFECTS)
def test_a_defect_is_reported_at_its_line(stub: Path, line: str, message: str) -> None:
    stub.write_text(f"{STUB}{line}\n", encoding="utf-8")
    assert 5 in [number for number, said in faults(stub) if message in said]


def test_a_wrong_order_is_reported_where_the_imports_begin(stub: Path) -> None:
    stub.write_text(f"{STUB}from .basket import Basket as Basket\n")
    ((line, message),) = faults(stub)
    assert line == 2
    assert "Import block is un-sorted" in message


def test_the_commands_fail_with_file_and_line(
    stub: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(stub.parent)]) == 0
    stub.write_text(f"{STUB}import os\n")
    assert main([str(stub.parent)]) == 1
    assert f"{stub}:5: {FORM}`import os`" in capsys.readouterr().err
    ruff(stub, status=1)


def test_names_bound_in_guards_and_try_blocks_are_defined(stub: Path) -> None:
    stub.with_name("fruit.py").write_text(
        "try:\n    from json import loads as Apple\nexcept ImportError:\n    Plum = None\n"
        "if True:\n    Pear, Quince = 1, 2\n"
    )
    names = ("Plum", "Quince")
    stub.write_text(STUB + "".join(f"from .fruit import {name} as {name}\n" for name in names))
    assert faults(stub) == []


@pytest.mark.parametrize(
    "text",
    [
        "# What the shop sells.\n# Wicker.\nfrom .fruit import Pear as Pear\n"
        "# Red.\nfrom .fruit import Apple as Apple\nfrom . import tools as tools\n",
        "# What the shop sells.\n# Wicker.\nfrom .fruit import Pear as Pear\n"
        "from . import tools as tools\n# Red.\nfrom .fruit import (\n    Apple as Apple,\n)\n",
    ],
    ids=["order", "parentheses"],
)
def test_fixing_sorts_and_keeps_each_comment_with_its_name(stub: Path, text: str) -> None:
    stub.write_text(text)
    ruff(stub, "--fix")
    lines = [line for line in stub.read_text().splitlines() if line]
    assert [line for line in lines if not line.startswith("#")] == STUB.splitlines()[1:]
    assert lines[lines.index("# Red.") + 1] == "from .fruit import Apple as Apple"
    assert faults(stub) == []


def test_fixing_drops_no_name(stub: Path) -> None:
    stub.write_text(f"{STUB}from .basket import Basket\n")
    ruff(stub, "--fix", status=1)
    assert "import Basket" in stub.read_text()


def test_a_folder_without_stubs_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main([str(tmp_path)])
    assert raised.value.code == 2
    assert "no __init__.pyi below" in capsys.readouterr().err
