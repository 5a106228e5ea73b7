"""The lazy layer: what a package made by `attach` does when names are touched."""

import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

INIT = "from art._lazy import attach\n\n__getattr__, __dir__, __all__ = attach(__name__)\n"


def write_package(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A lazy package `shop` with an attribute, a submodule and two broken modules."""
    write_package(
        tmp_path,
        {
            "shop/__init__.py": INIT,
            "shop/__init__.pyi": """\
                # What the shop sells.
                from . import tools as tools
                from .broken import Torn as Torn
                from .fruit import Apple as Apple
                from .fruit import Pear as Pear
                from .partial import Half as Half
                """,
            "shop/fruit.py": "class Apple: ...\nclass Pear: ...\n",
            "shop/tools.py": "HAMMER = 1\n",
            "shop/broken.py": "import sys\nTorn = sys.no_such_thing\n",
            "shop/partial.py": "import json.no_such_part\nHalf = 1\n",
        },
    )
    return tmp_path


def run(code: str, *path: Path) -> str:
    """Run code in a fresh interpreter with `path` in front; return what it printed."""
    prelude = f"import sys; sys.path[:0] = {[str(p) for p in path]!r}\n"
    result = subprocess.run(
        [sys.executable, "-c", prelude + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_a_name_loads_its_module_on_first_touch_and_only_that(package: Path) -> None:
    out = run(
        """
        import sys, shop
        before = [m for m in sys.modules if m.startswith("shop.")]
        apple = shop.Apple
        after = [m for m in sys.modules if m.startswith("shop.")]
        print(before, after, apple is shop.Apple, apple.__module__)
        """,
        package,
    )
    assert out == "[] ['shop.fruit'] True shop.fruit"


def test_dir_and_all_list_lazy_names_and_keep_the_rest(package: Path) -> None:
    out = run(
        """
        import shop
        print(sorted(shop.__all__))
        print({"Apple", "tools", "__doc__", "__path__", "__name__"} <= set(dir(shop)))
        """,
        package,
    )
    assert out.splitlines() == ["['Apple', 'Half', 'Pear', 'Torn', 'tools']", "True"]


def test_an_unknown_name_is_an_attribute_error_with_a_suggestion(package: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(package)!r}); import shop; shop.Aple"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert result.stderr.splitlines()[-1] == (
        "AttributeError: module 'shop' has no attribute 'Aple'. Did you mean: 'Apple'?"
    )
    assert run("import shop; print(hasattr(shop, 'Aple'))", package) == "False"


def test_an_attribute_error_inside_a_module_is_not_taken_for_a_missing_name(package: Path) -> None:
    out = run(
        """
        import shop
        try:
            hasattr(shop, "Torn")
        except ImportError as error:
            print(error)
            print(repr(error.__cause__))
        """,
        package,
    )
    message, cause = out.splitlines()
    assert message.startswith("cannot load shop.Torn: ")
    assert "no_such_thing" in cause


def test_a_partial_install_shows_its_own_error(package: Path) -> None:
    out = run(
        """
        import shop
        try:
            shop.Half
        except ModuleNotFoundError as error:
            print(type(error).__name__, error.name)
        """,
        package,
    )
    assert out == "ModuleNotFoundError json.no_such_part"


def test_a_lazy_package_works_from_a_zip_file(package: Path) -> None:
    archive = package / "shop.zip"
    with zipfile.ZipFile(archive, "w") as bundle:
        for file in (package / "shop").iterdir():
            if file.is_file():
                bundle.write(file, f"shop/{file.name}")
    out = run("import shop; print(shop.Pear.__module__, shop.__file__)", archive)
    assert out.startswith("shop.fruit ")
    assert "shop.zip" in out


@pytest.mark.parametrize(
    ("name", "package_name", "extra"),
    [
        ("torch_is_not_here", "art.engine", "local"),
        ("tinker_is_not_here", "art.tinker", "tinker"),
        ("megatron_is_not_here", "art.megatron.model_support.handlers", "megatron"),
    ],
)
def test_an_absent_engine_names_its_extra_and_the_command(
    name: str, package_name: str, extra: str
) -> None:
    from art._lazy import explain_missing
    from art.errors import MissingExtraError

    error = explain_missing(
        ModuleNotFoundError(f"No module named {name!r}", name=name), package_name
    )
    assert isinstance(error, MissingExtraError)
    assert isinstance(error, ImportError)
    assert f'pip install "art-rl[{extra}]"' in str(error)


def test_a_present_root_package_keeps_its_own_error() -> None:
    from art._lazy import explain_missing

    error = ModuleNotFoundError("No module named 'json.gone'", name="json.gone")
    assert explain_missing(error, "art.engine") is error


def test_every_public_name_of_art_has_a_module() -> None:
    """The stub checker, on the installed package."""
    import art
    from art._stub_grammar import check_stub

    root = Path(art.__file__).parent
    faults = [str(f) for stub in root.rglob("__init__.pyi") for f in check_stub(stub)]
    assert faults == []


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("from .fruit import Apple", "write `from .module import Name as Name`"),
        ("from .fruit import Apple as Obst", "exported under another name"),
        ("from shop.fruit import Apple as Apple", "write `from .module import Name as Name`"),
        ("from typing import Any as Any", "write `from .module import Name as Name`"),
        ("__all__ = ['Apple']", "write `from .module import Name as Name`"),
        ("if TYPE_CHECKING:", "write `from .module import Name as Name`"),
        ("from .fruit import Äpfel as Äpfel", "write `from .module import Name as Name`"),
        ("from .fruit import Plum as Plum", "does not define `Plum`"),
        ("from .vegetables import Leek as Leek", "no module `.vegetables`"),
        ("from .fruit import fruit as fruit", "also the submodule that defines it"),
        ("from .fruit import Pear as Pear", "stands already in line 5"),
    ],
)
def test_the_stub_grammar_names_file_line_and_fault(package: Path, line: str, fault: str) -> None:
    from art._stub_grammar import check_stub

    stub = package / "shop" / "__init__.pyi"
    assert list(check_stub(stub)) == []
    stub.write_text(stub.read_text() + line + "\n", encoding="utf-8")
    (found,) = check_stub(stub)
    assert (found.path, found.line) == (stub, 7)
    assert fault in found.message
