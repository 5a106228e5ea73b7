"""The grammar of stubs: each defect is named with its file and line, and mended where it can be."""

import keyword
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import art
from art._stub_grammar import check_stub, fix_stub, main

ANY = "write `from .module import Name as Name`, not "


def test_every_public_name_of_art_has_a_module() -> None:
    stubs = sorted(Path(art.__file__).parent.rglob("__init__.pyi"))
    assert len(stubs) >= 9
    assert [str(fault) for stub in stubs for fault in check_stub(stub)] == []


def test_every_lazy_package_has_both_files_and_nothing_else_in_them(shop) -> None:
    init = (shop / "shop" / "__init__.py").read_text()
    for stub in Path(art.__file__).parent.rglob("__init__.pyi"):
        assert stub.with_suffix(".py").read_text() == init, stub


# What is written in line 5 of the stub, and what the fault says. `lazy_loader.attach_stub` takes
# those marked "silent" without a word and does something else; the others it refuses, or not,
# without saying where.
DEFECTS = {
    "alias (silent)": ("from .fruit import Apple as Obst", "under another name, `Obst`"),
    "no alias": ("from .fruit import Apple", "without `as Apple` no editor completes"),
    "type checking guard (silent)": ("if TYPE_CHECKING:\n    x: int", "is not evaluated"),
    "version guard (silent)": (
        "if sys.version_info >= (3, 12):\n    from .fruit import Apple as Apple\n"
        "else:\n    from .fruit import Pear as Apple",
        "a guard (`if sys.version_info >= (3, 12):`) is not evaluated",
    ),
    "class body (silent)": (
        "class Shelf:\n    from .fruit import Apple as Apple",
        "a stub defines nothing",
    ),
    "function": ("def weigh() -> int: ...", "a stub defines nothing"),
    "constant": ("PRICE: int = 1", "a stub defines nothing"),
    "duplicate (silent)": ("from .fruit import Pear as Pear", "stands already in line 4"),
    "two addresses (silent)": ("from .tools import Pear as Pear", "stands already in line 4"),
    "__all__ (silent)": ("__all__ = ['Apple']", "`__all__` is made from the lines"),
    "absolute import": ("from shop.fruit import Apple as Apple", "the import is absolute"),
    "typing": ("from typing import Any as Any", "the import is absolute"),
    "plain import": ("import os", "a module of elsewhere"),
    "outer package": ("from ..fruit import Apple as Apple", "outside of the package"),
    "star": ("from .fruit import *", "hides the names"),
    "name of its module (silent)": ("from .fruit import fruit as fruit", "that defines it: rename"),
    "name of another module (silent)": ("from .fruit import tools as tools", "also a submodule"),
    "not ASCII": ("from .fruit import Äpfel as Äpfel", "names are ASCII"),
    "two names": ("from .fruit import Apple as Apple, Pear as Pear", "one name a line"),
    "parentheses": ("from .fruit import (\n    Apple as Apple,\n)", "one line, one space"),
    "two statements": ("from .fruit import A as A; x = 1", "one line, one space"),
    "comment behind": ("from .fruit import Apple as Apple  # red", "one line, one space"),
    "docstring": ('"""The shop."""', ANY),
    "syntax": ("from .fruit import", "not Python: "),
    "no such name (silent)": ("from .fruit import Plum as Plum", "does not define `Plum`"),
    "no such module (silent)": ("from .vegetables import Leek as Leek", "no module `.vegetables`"),
    "no such submodule (silent)": ("from . import cellar as cellar", "no submodule `cellar`"),
    "order": ("from .basket import Basket as Basket", "out of order: --fix sorts"),
}
LINES = (
    "# What the shop sells.\n"
    "from . import tools as tools\n"
    "from .fruit import Apple as Apple\n"
    "from .fruit import Pear as Pear\n"
)


@pytest.mark.parametrize(("line", "message"), DEFECTS.values(), ids=DEFECTS)
def test_a_defect_is_named_with_file_and_line(shop, capsys, line: str, message: str) -> None:
    stub = shop / "shop" / "__init__.pyi"
    stub.write_text(LINES)
    assert list(check_stub(stub)) == []
    stub.write_text(LINES + line + "\n", encoding="utf-8")
    found = [fault for fault in check_stub(stub) if message in fault.message]
    assert [(fault.path, fault.line) for fault in found] == [(stub, 5)]
    assert main([str(shop)]) == 1
    assert f"{stub}:5: {found[0].message}" in capsys.readouterr().err


def test_names_bound_in_guards_and_try_blocks_are_defined(shop) -> None:
    (shop / "shop" / "fruit.py").write_text(
        "try:\n    from json import loads as Apple\nexcept ImportError:\n    Apple = None\n"
        "if True:\n    Pear, Plum = 1, 2\n"
    )
    stub = shop / "shop" / "__init__.pyi"
    stub.write_text(LINES + "from .fruit import Plum as Plum\n")
    assert list(check_stub(stub)) == []


MENDED = LINES.replace(
    "from .fruit import A", "from .basket import Basket as Basket\nfrom .fruit import A"
)
MENDABLE = {
    "order": "from .fruit import Pear as Pear\nfrom .basket import Basket as Basket\n"
    "from .fruit import Apple as Apple\nfrom . import tools as tools\n",
    "alias left out": "from . import tools\nfrom .basket import Basket\n"
    "from .fruit import Apple, Pear\n",
    "parentheses": "from . import tools as tools\nfrom .basket import Basket as Basket\n"
    "from .fruit import (\n    Apple as Apple,\n    Pear,\n)\n",
    "duplicates": "from . import tools as tools\nfrom .basket import Basket as Basket\n"
    "from .fruit import Apple as Apple\nfrom .fruit import Apple\nfrom .fruit import Pear\n",
    "absolute": "from shop import tools\nfrom shop.basket import Basket\n"
    "from shop.fruit import Apple, Pear\n",
    "__all__": "from . import tools\nfrom .basket import Basket\nfrom .fruit import Apple, Pear\n"
    "__all__ = ['Apple', 'Basket', 'Pear', 'tools']\n",
    "blank lines": "\n\nfrom . import tools\n\nfrom .basket import Basket\n"
    "from .fruit import Apple, Pear\n",
}


@pytest.mark.parametrize("text", MENDABLE.values(), ids=MENDABLE)
def test_fix_mends_what_needs_no_guess(shop, capsys, text: str) -> None:
    stub = shop / "shop" / "__init__.pyi"
    stub.write_text(f"# What the shop sells.\n{text}")
    assert main([str(shop)]) == 1
    assert main(["--fix", str(shop)]) == 0
    assert f"{stub}: rewritten" in capsys.readouterr().err
    assert stub.read_text() == MENDED
    assert fix_stub(stub) is False


def test_fix_keeps_every_comment_with_its_name(shop) -> None:
    stub = shop / "shop" / "__init__.pyi"
    stub.write_text(
        "# What the shop sells.\n\nfrom .fruit import Pear  # ripe\n\n# Red.\n\n"
        "from .fruit import Apple\n# Wicker.\nfrom .basket import Basket\n# The end.\n"
    )
    assert fix_stub(stub)
    assert stub.read_text().splitlines() == [
        "# What the shop sells.",
        "# Wicker.",
        "from .basket import Basket as Basket",
        "# Red.",
        "from .fruit import Apple as Apple",
        "# ripe",
        "from .fruit import Pear as Pear",
        "# The end.",
    ]


UNMENDABLE = {
    "alias": "from .fruit import Apple as Obst",
    "two addresses": "from .fruit import Apple\nfrom .basket import Apple",
    "guard": "from .fruit import Pear\nif TYPE_CHECKING:\n    from .fruit import Apple",
    "class": "from .fruit import Pear\nclass Shelf: ...",
    "another __all__": "from .fruit import Pear\n__all__ = ['Apple']",
    "computed __all__": "from .fruit import Pear\n__all__ = [*names]",
    "star": "from .fruit import *",
    "typing": "from typing import Any\nfrom .fruit import Apple",
    "a package of like name": "from shopping.fruit import Apple",
    "not ASCII": "from .fruit import Äpfel",
    "syntax": "from .fruit import",
}


@pytest.mark.parametrize("text", UNMENDABLE.values(), ids=UNMENDABLE)
def test_fix_leaves_what_it_would_have_to_guess(shop, text: str) -> None:
    stub = shop / "shop" / "__init__.pyi"
    stub.write_text(f"{text}\n", encoding="utf-8")
    assert main(["--fix", str(shop)]) == 1
    assert stub.read_text(encoding="utf-8") == f"{text}\n"


def test_the_command_is_for_folders_that_hold_stubs(tmp_path, capsys) -> None:
    with pytest.raises(SystemExit) as raised:
        main([str(tmp_path)])
    assert raised.value.code == 2
    assert "no __init__.pyi below" in capsys.readouterr().err


NAMES = st.from_regex(r"[A-Za-z_]([A-Za-z_]|[1-9][0-9]?){0,6}", fullmatch=True).filter(
    lambda name: not keyword.iskeyword(name.lower())
)
MODULES = st.lists(NAMES.map(str.lower), max_size=2).map(".".join)
RUFF = shutil.which("ruff", path=str(Path(sys.executable).parent))


@pytest.mark.skipif(RUFF is None, reason="ruff is not installed in this environment")
def test_the_order_is_that_of_ruff(tmp_path_factory) -> None:
    folder = tmp_path_factory.mktemp("stubs")

    @settings(max_examples=10, deadline=None, phases=[Phase.explicit, Phase.generate])
    @given(st.lists(st.dictionaries(NAMES, MODULES, max_size=8), min_size=30, max_size=30))
    def sorts_as_ruff(stubs: list[dict[str, str]]) -> None:
        for number, addresses in enumerate(stubs):
            stub = folder / f"package{number}" / "__init__.pyi"
            stub.parent.mkdir(exist_ok=True)
            stub.write_text("".join(f"from .{m} import {n}\n" for n, m in addresses.items()))
            fix_stub(stub)
        result = subprocess.run(
            [RUFF, "check", "--isolated", "--select", "I", "--no-cache", str(folder)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert result.returncode == 0, result.stdout

    sorts_as_ruff()
