"""A lazy package to try things on, and fresh interpreters to try them in."""

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

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


@pytest.fixture
def add(shop: Path) -> Callable[[str, str], None]:
    """Add a module to `shop` and its name `Torn` to the stub."""

    def add_module(module: str, source: str) -> None:
        write(shop, {f"shop/{module}.py": source})
        with (shop / "shop" / "__init__.pyi").open("a") as stub:
            stub.write(f"from .{module} import Torn as Torn\n")

    return add_module


@pytest.fixture
def run() -> Callable[..., str]:
    """Run code in a fresh interpreter, with `paths` in front; give what it printed."""

    def run_code(code: str, *paths: Path, env: dict[str, str] | None = None, fails: bool = False):
        import os

        prelude = f"import sys; sys.path[:0] = {[str(path) for path in paths]!r}\n"
        result = subprocess.run(
            [sys.executable, "-c", prelude + textwrap.dedent(code)],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, **(env or {})},
        )
        assert (result.returncode != 0) is fails, result.stderr
        return (result.stderr if fails else result.stdout).strip()

    return run_code


@pytest.fixture
def run_file(tmp_path: Path) -> Callable[..., str]:
    """Run a file, as programs with child processes need; give what it printed."""

    def run_program(code: str, *paths: Path) -> str:
        prelude = f"import sys; sys.path[:0] = {[str(path) for path in paths]!r}\n"
        program = tmp_path / "program.py"
        program.write_text(prelude + textwrap.dedent(code))
        result = subprocess.run(
            [sys.executable, str(program)], capture_output=True, text=True, timeout=120
        )
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()

    return run_program
