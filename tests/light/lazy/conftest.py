"""A lazy package to try things on, and fresh interpreters to try them in."""

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest

from tests.processes import run, run_python

INIT = "from art import _lazy\n\n__getattr__, __dir__, __all__ = _lazy.attach(__name__)\n"
SHOP = {
    "shop/__init__.py": INIT,
    "shop/__init__.pyi": """\
        # What the shop sells.
        from . import tools as tools
        from .basket import Basket as Basket
        from .fruit import Apple as Apple
        from .fruit import Pear as Pear
        """,
    # Two modules that import each other through the package, as modules of art may.
    "shop/basket.py": "from shop import Apple\nclass Basket:\n    fruit = Apple\n",
    "shop/fruit.py": '''\
        class Apple:
            """Red."""
        class Pear:
            def basket(self):
                from shop import Basket
                return Basket()
        ''',
    "shop/tools/__init__.py": INIT,
    "shop/tools/__init__.pyi": "from .hammer import HAMMER as HAMMER\n",
    "shop/tools/hammer.py": "HAMMER = 1\n",
}


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The folder that holds the lazy package `shop`."""
    write(tmp_path, SHOP)
    return tmp_path


AddModule = Callable[[str, str], None]


class Run(Protocol):
    """Runs code with folders in front of ``sys.path``; gives what it printed, or its errors."""

    def __call__(
        self, code: str, *paths: Path, env: dict[str, str] | None = None, fails: bool = False
    ) -> str: ...


RunFile = Callable[..., str]


@pytest.fixture
def add(shop: Path) -> AddModule:
    """Add a module to `shop` and its name `Torn` to the stub."""

    def add_module(module: str, source: str) -> None:
        write(shop, {f"shop/{module}.py": source})
        with (shop / "shop" / "__init__.pyi").open("a") as stub:
            stub.write(f"from .{module} import Torn as Torn\n")

    return add_module


@pytest.fixture(name="run")
def run_code() -> Run:
    """Run code in a fresh interpreter."""

    def run_with_paths(
        code: str, *paths: Path, env: dict[str, str] | None = None, fails: bool = False
    ) -> str:
        result = run_python(_with_paths(code, paths), env=env, status=1 if fails else 0)
        return (result.stderr if fails else result.stdout).strip()

    return run_with_paths


@pytest.fixture
def run_file(tmp_path: Path) -> RunFile:
    """Run a file, as programs with child processes need; give what it printed."""

    def run_program(code: str, *paths: Path) -> str:
        program = tmp_path / "program.py"
        program.write_text(_with_paths(code, paths))
        return run(sys.executable, program).stdout.strip()

    return run_program


def _with_paths(code: str, paths: tuple[Path, ...]) -> str:
    prelude = f"import sys; sys.path[:0] = {[str(path) for path in paths]!r}\n"
    return prelude + textwrap.dedent(code)
