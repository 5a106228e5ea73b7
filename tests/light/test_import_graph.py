"""The imports inside art, all of them: no circle, and torch only where it belongs.

Read from the sources with `ast`: at module level, inside functions and for type checkers. An
import of a lazy package's name counts as one of the module that its stub names.
"""

import ast
from collections.abc import Iterator
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import art
from tests.processes import ROOT
from tools.layers import read_contracts

ART = Path(art.__file__).parent
TORCH = {"accelerate", "peft", "torch"}
WITH_TORCH = ("art.executors", "art.megatron")


class Sources:
    """The modules of a package, and what each imports.

    Args:
        package: The folder of the package.
    """

    def __init__(self, package: Path) -> None:
        self._root = package.parent
        self._paths = {self._module(path): path for path in sorted(package.rglob("*.py"))}
        self._addresses = {
            f"{self._module(path)}.{alias.name}": f"{base}.{alias.name}".replace("..", ".")
            for path in sorted(package.rglob("__init__.pyi"))
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
            for base in (f"{self._module(path)}.{node.module or ''}",)
        }

    @cached_property
    def imports(self) -> dict[str, set[str]]:
        """Full names that each module imports: modules and names in modules."""
        return {
            module: {
                name
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                for name in self._names(node, module, is_package=path.stem == "__init__")
            }
            for module, path in self._paths.items()
        }

    @cached_property
    def graph(self) -> dict[str, set[str]]:
        """The modules of the package that each module imports."""
        found = {}
        for module, names in self.imports.items():
            found[module] = {each for name in names for each in self._modules_of(name)} - {module}
        return found

    def path(self, module: str) -> Path:
        """The file of a module, relative to the folder above the package."""
        return self._paths[module].relative_to(self._root)

    def _module(self, path: Path) -> str:
        parts = path.relative_to(self._root).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def _names(self, node: ast.AST, module: str, *, is_package: bool) -> Iterator[str]:
        match node:
            case ast.Import(names=aliases):
                yield from (alias.name for alias in aliases)
            case ast.ImportFrom(names=aliases, level=level, module=base):
                parents = module.split(".")
                above = parents[: len(parents) - level + is_package] if level else []
                full = ".".join([*above, *([base] if base else [])])
                yield from (f"{full}.{alias.name}" for alias in aliases)

    def _modules_of(self, name: str) -> Iterator[str]:
        """The modules that importing a name loads: also the one behind a lazy name."""
        if name in self._addresses and self._addresses[name] != name:
            yield from self._modules_of(self._addresses[name])
        while name:
            if name in self._paths:
                yield name
                return
            name = name.rpartition(".")[0]


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The modules of one circle, in the order in which they import each other; empty if none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found[::-1]
    return []


def importers_of(roots: set[str], sources: Sources) -> set[str]:
    """The modules that import one of some third-party packages."""
    return {
        module
        for module, names in sources.imports.items()
        if roots & {name.partition(".")[0] for name in names}
    }


@pytest.fixture(scope="module")
def sources() -> Sources:
    return Sources(ART)


def test_no_import_is_part_of_a_circle(sources: Sources) -> None:
    found = circle(sources.graph)
    assert not found, "a circle of imports: " + " -> ".join(map(str, map(sources.path, found)))


def test_torch_is_imported_by_executors_and_megatron_code_alone(sources: Sources) -> None:
    found = importers_of(TORCH, sources)
    assert found
    assert not [module for module in found if not module.startswith(WITH_TORCH)]


def test_no_lazy_name_comes_from_a_higher_layer(sources: Sources) -> None:
    """import-linter sees the package that a lazy name is imported from, this the module behind."""
    layers = read_contracts(ROOT / ".importlinter").layers
    rank = {f"art.{name}": number for number, layer in enumerate(layers) for name in layer}
    upwards = [
        f"{sources.path(module)} imports {other}"
        for module, others in sources.graph.items()
        for other in others - {"art"}
        if module != "art" and package(module) != package(other)
        if rank[package(module)] >= rank[package(other)]
    ]
    assert not upwards, "\n".join(upwards)


def package(module: str) -> str:
    """The part of art that a module belongs to, such as ``art.rl``."""
    return ".".join(module.split(".")[:2])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("from shop.second import b", "import shop.second\nimport shop.first"),
        ("from . import second", "def f():\n    from .first import a"),
        ("from shop import b", "if TYPE_CHECKING:\n    from shop.first import a"),
        ("from shop.second import b", "from shop import a"),
    ],
    ids=["module level", "in a function", "for type checkers", "by a lazy name"],
)
def test_a_circle_is_found(tmp_path: Path, first: str, second: str) -> None:
    files = {
        "__init__.py": "",
        "__init__.pyi": "from .first import a as a\nfrom .second import b as b\n",
        "first.py": f"{first}\na = 1\n",
        "second.py": f"{second}\nb = 1\n",
    }
    write(tmp_path / "shop", files)
    found = circle(Sources(tmp_path / "shop").graph)
    assert set(found) == {"shop.first", "shop.second"}
    write(tmp_path / "shop", {"second.py": "import json\nb = 1\n"})
    assert circle(Sources(tmp_path / "shop").graph) == []


@pytest.mark.parametrize(
    "line", ["import torch.nn", "from torch import nn", "def f():\n    import torch"]
)
def test_an_import_of_torch_is_found(tmp_path: Path, line: str) -> None:
    write(tmp_path / "shop", {"__init__.py": "", "tools.py": "import os", "light.py": line})
    assert importers_of(TORCH, Sources(tmp_path / "shop")) == {"shop.light"}


def write(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
