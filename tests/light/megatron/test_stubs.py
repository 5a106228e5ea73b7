"""``stubs/`` has every name of megatron-core that art or its tests use, and no others.

The sources are read with ``ast``, so no engine is needed. The agreement of the stubs with
megatron-core is tested where it is installed, in ``tests/megatron/test_stubs.py``.
"""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import Protocol

import pytest

ROOT = Path(__file__).parents[3]
Definition = ast.ClassDef | ast.FunctionDef | ast.AnnAssign | ast.Assign


@dataclass(frozen=True)
class Name:
    """A name of megatron-core, and the place that uses or defines it."""

    module: str
    name: str
    place: str = field(compare=False)

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Stubs:
    """The definitions in the stubs below a folder, and the names that they refer to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trees = {
            ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__"): (
                path,
                ast.parse(path.read_text(encoding="utf-8")),
            )
            for path in sorted(folder.glob("megatron/**/*.pyi"))
        }
        self.definitions: dict[Name, Definition] = {}
        self.origins: dict[Name, Name] = {}
        for module, (path, tree) in self.trees.items():
            for statement in tree.body:
                place = f"{path.relative_to(folder.parent)}:{statement.lineno}"
                for name in _defined(statement):
                    assert isinstance(statement, Definition)
                    self.definitions[Name(module, name, place)] = statement
                if isinstance(statement, ast.ImportFrom):
                    source = _absolute(statement, module, is_package=path.stem == "__init__")
                    for alias in statement.names:
                        imported = Name(module, alias.asname or alias.name, place)
                        self.origins[imported] = Name(source, alias.name, place)

    def resolve(self, name: Name) -> Name:
        """Follow imports among the stubs to the definition of a name."""
        while name in self.origins:
            name = self.origins[name]
        return name

    def exports(self, name: Name) -> bool:
        """Test whether ``from module import name`` finds something in the stubs."""
        if str(name) in self.trees or name in self.definitions:
            return True
        tree = self.trees.get(name.module)
        return tree is not None and any(
            alias.asname == alias.name == name.name
            for statement in tree[1].body
            if isinstance(statement, ast.ImportFrom)
            for alias in statement.names
        )

    def class_of(self, name: Name) -> ast.ClassDef | None:
        """The class that a name is, if it is one."""
        definition = self.definitions.get(self.resolve(name))
        return definition if isinstance(definition, ast.ClassDef) else None

    def has_constructor(self, name: Name) -> bool:
        """Test whether a class, or a base of it in the stubs, has a constructor."""
        name = self.resolve(name)
        cls = self.definitions.get(name)
        if not isinstance(cls, ast.ClassDef):
            return False
        if cls.decorator_list or "__init__" in _members(cls):
            return True
        return any(
            self.has_constructor(Name(name.module, base.id, ""))
            for base in cls.bases
            if isinstance(base, ast.Name)
        )


class Uses:
    """The names of megatron-core that the modules below some folders use."""

    def __init__(self, folders: Iterable[Path], stubs: Stubs) -> None:
        self.names: list[Name] = []
        self.called: list[Name] = []
        # Any attribute, keyword or method may be of a megatron object: ast knows no types.
        self.attributes: set[str] = set()
        files = ((folder, path) for folder in folders for path in sorted(folder.rglob("*.py")))
        for folder, path in files:
            tree = ast.parse(path.read_text(encoding="utf-8"))
            if "megatron." in ast.unparse(tree):
                self._read(tree, str(path.relative_to(folder.parent)), stubs)

    def _read(self, tree: ast.Module, file: str, stubs: Stubs) -> None:
        local: dict[str, Name] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and _is_megatron(node.module) and not node.level:
                assert node.module is not None
                for alias in node.names:
                    name = Name(node.module, alias.name, f"{file}:{node.lineno}")
                    local[alias.asname or alias.name] = name
                    self.names.append(name)
            elif isinstance(node, ast.Import):
                for alias in filter(lambda alias: _is_megatron(alias.name), node.names):
                    module, _, last = alias.name.rpartition(".")
                    name = Name(module, last, f"{file}:{node.lineno}")
                    self.names.append(name)
                    local[alias.asname or alias.name] = name
            elif isinstance(node, ast.FunctionDef):
                self.attributes.add(node.name)
            elif isinstance(node, ast.keyword) and node.arg:
                self.attributes.add(node.arg)
            elif isinstance(node, ast.Dict):
                # A dict of keyword arguments, and below, what is read from or put into one.
                self.attributes |= {str(getattr(key, "value", "")) for key in node.keys}
            elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
                self.attributes.add(str(node.slice.value))
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                self.attributes.add(node.attr)
                owner = _module(node.value, local, stubs)
                if owner is not None:
                    self.names.append(Name(owner, node.attr, f"{file}:{node.lineno}"))
            elif isinstance(node, ast.Call):
                called = _called(node.func, local, stubs)
                if called is not None:
                    place = f"{file}:{node.lineno}"
                    self.called.append(Name(called.module, called.name, place))


def _called(func: ast.expr, local: dict[str, Name], stubs: Stubs) -> Name | None:
    if isinstance(func, ast.Name):
        return local.get(func.id)
    if isinstance(func, ast.Attribute):
        module = _module(func.value, local, stubs)
        if module is not None:
            return Name(module, func.attr, "")
    return None


def _module(value: ast.expr, local: dict[str, Name], stubs: Stubs) -> str | None:
    """Get the megatron module of an expression: a name, or ``sys.modules["..."]`` or the like."""
    owner = str(local.get(ast.unparse(value), ""))
    if isinstance(value, ast.Subscript | ast.Call):
        arguments = [value.slice] if isinstance(value, ast.Subscript) else value.args
        for argument in arguments[:1]:
            if isinstance(argument, ast.Constant):
                owner = str(argument.value)
    return owner if owner in stubs.trees else None


def _is_megatron(module: str | None) -> bool:
    return module is not None and module.partition(".")[0] == "megatron"


def _defined(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.ClassDef | ast.FunctionDef):
        yield statement.name
    elif isinstance(statement, ast.AnnAssign):
        yield ast.unparse(statement.target)
    elif isinstance(statement, ast.Assign):
        yield from map(ast.unparse, statement.targets)


def _members(cls: ast.ClassDef) -> dict[str, ast.stmt]:
    return {name: statement for statement in cls.body for name in _defined(statement)}


def _absolute(statement: ast.ImportFrom, module: str, *, is_package: bool) -> str:
    if not statement.level:
        return statement.module or ""
    parts = module.split(".")
    base = parts[: len(parts) - statement.level + is_package]
    return ".".join([*base, statement.module] if statement.module else base)


def lacking(stubs: Stubs, uses: Uses) -> list[str]:
    """Say which names art uses that the stubs do not have."""
    problems = [
        f"{name.place}: uses {name}, which {_stub_file(stubs, name)} lacks: add it there, with "
        "the types that megatron-core gives it"
        for name in uses.names
        if not stubs.exports(name)
    ]
    problems += [
        f"{name.place}: makes a {name}, but its stub does not say from what: give the class "
        f"its __init__ in {_stub_file(stubs, stubs.resolve(name))}"
        for name in uses.called
        if stubs.class_of(name) is not None and not stubs.has_constructor(name)
    ]
    return problems


def unused(stubs: Stubs, uses: Uses) -> list[str]:
    """Say which names the stubs have that art does not use."""
    reached = _reached(stubs, uses)
    problems = [
        f"{name.place}: nothing in art uses {name}: take it out of the stubs"
        for name in stubs.definitions
        if name not in reached
    ]
    needed = {name.module for name in (*reached, *uses.names)} | {str(name) for name in uses.names}
    problems += [
        f"{path.relative_to(stubs.folder.parent)}: nothing in art uses {module}: remove the file"
        for module, (path, _) in stubs.trees.items()
        if not any(used == module or used.startswith(f"{module}.") for used in needed)
    ]
    called = {stubs.resolve(name) for name in uses.called}
    for name, definition in stubs.definitions.items():
        for member in _members(definition) if isinstance(definition, ast.ClassDef) else ():
            is_used = member in uses.attributes
            if member == "__init__":
                is_used = name in called or _is_base_of(stubs, name, called)
            elif member.startswith("__"):
                is_used = True  # an operator: how it is used shows in no name
            if not is_used:
                problems.append(
                    f"{name.place}: nothing in art uses {name}.{member}: take it out of the stubs"
                )
    return problems


def _reached(stubs: Stubs, uses: Uses) -> set[Name]:
    """The definitions that art's names lead to, by imports, bases and annotations."""
    reached: set[Name] = set()
    pending = [stubs.resolve(name) for name in uses.names]
    while pending:
        name = pending.pop()
        definition = stubs.definitions.get(name)
        if definition is None or name in reached:
            continue
        reached.add(name)
        pending += [
            stubs.resolve(Name(name.module, node.id, ""))
            for node in ast.walk(definition)
            if isinstance(node, ast.Name)
        ]
    return reached


def _is_base_of(stubs: Stubs, name: Name, called: set[Name]) -> bool:
    return any(
        stubs.resolve(Name(sub.module, base.id, "")) == name
        for sub in called
        for base in getattr(stubs.definitions.get(sub), "bases", ())
        if isinstance(base, ast.Name)
    )


def _stub_file(stubs: Stubs, name: Name) -> str:
    if name.module in stubs.trees:
        path = stubs.trees[name.module][0].relative_to(stubs.folder.parent)
        if path.stem != "__init__":
            return str(path)
        return f"{path} (or {path.with_name(name.name + '.pyi')}, if it is a module)"
    return f"{stubs.folder.name}/{name.module.replace('.', '/')}.pyi (a new file)"


# The folders that mypy checks with the stubs.
CHECKED = [ROOT / "art", ROOT / "examples", ROOT / "tests" / "megatron"]


def test_the_stubs_have_every_name_that_art_uses() -> None:
    stubs = Stubs(ROOT / "stubs")
    problems = lacking(stubs, Uses(CHECKED, stubs))
    assert not problems, "\n" + "\n".join(problems)


def test_art_uses_every_name_that_the_stubs_have() -> None:
    stubs = Stubs(ROOT / "stubs")
    uses = Uses(CHECKED, stubs)
    assert len(uses.names) > 10, "the search for megatron names finds nothing"
    problems = unused(stubs, uses)
    assert not problems, "\n" + "\n".join(problems)


class Check(Protocol):
    """Compares a small art with small stubs."""

    def __call__(self, use: str, stub: str = ...) -> tuple[list[str], list[str]]: ...


STUB = """
    from .config import Config
    from torch import nn

    class Layer(nn.Module):
        config: Config
        def forward(self, x: int) -> int: ...

    def build(config: Config) -> Layer: ...
"""
USE = """
    from megatron.core.layer import Layer, build

    def run(layer: Layer, x: int) -> int:
        return build(layer.config).forward(x)
"""


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Compares a small art with small stubs; returns what is lacking, and what is unused."""

    def compare(use: str, stub: str = STUB) -> tuple[list[str], list[str]]:
        core = tmp_path / "stubs" / "megatron" / "core"
        core.mkdir(parents=True)
        (core / "__init__.pyi").touch()
        (core / "layer.pyi").write_text(dedent(stub))
        (core / "config.pyi").write_text("class Config: ...\n")
        (tmp_path / "art").mkdir()
        (tmp_path / "art" / "module.py").write_text(dedent(use))
        stubs = Stubs(tmp_path / "stubs")
        uses = Uses([tmp_path / "art"], stubs)
        return lacking(stubs, uses), unused(stubs, uses)

    return compare


def test_small_stubs_that_fit_pass(check: Check) -> None:
    assert check(USE) == ([], [])


@pytest.mark.parametrize(
    ("use", "missing"),
    [
        (USE + "    from megatron.core.layer import Other\n", "megatron.core.layer.Other"),
        (USE + "    from megatron.core.layer import Config\n", "megatron.core.layer.Config"),
        (USE + "    from megatron.core import optimizer\n", "megatron.core.optimizer"),
        (USE + "    import megatron.core.optimizer\n", "megatron.core.optimizer"),
        (USE + "    from megatron.core import layer as m\n    m.other\n", "core.layer.other"),
        (USE + "    import megatron.core.layer\n    megatron.core.layer.other\n", ".layer.other"),
        (USE + "    import sys\n    sys.modules['megatron.core.layer'].other\n", "layer.other"),
        (USE + "    Layer()\n", "makes a megatron.core.layer.Layer"),
    ],
)
def test_a_name_that_the_stubs_lack_is_found(check: Check, use: str, missing: str) -> None:
    (problem,), _ = check(use)
    assert missing in problem
    assert problem.startswith("art/module.py:")
    assert "stubs/megatron/core" in problem


@pytest.mark.parametrize(
    ("stub", "extra"),
    [
        (STUB + "    class Other: ...\n", "core.layer.Other"),
        (STUB + "    VALUE: int\n", "core.layer.VALUE"),
        (STUB.replace("config: Config\n", "config: Config\n        size: int\n"), "Layer.size"),
        (
            STUB.replace("config: Config\n", "config: Config\n        def go(self) -> int: ...\n"),
            "Layer.go",
        ),
        (
            STUB.replace("config: Config\n", "config: Config\n        def __init__(self): ...\n"),
            "Layer.__init__",
        ),
    ],
)
def test_a_name_that_nothing_uses_is_found(check: Check, stub: str, extra: str) -> None:
    _, (problem,) = check(USE, stub)
    assert extra in problem
    assert problem.startswith("stubs/megatron/core/layer.pyi:")


def test_a_stub_file_that_nothing_uses_is_found(check: Check) -> None:
    use = "from megatron.core.config import Config\n"
    _, problems = check(use)
    assert "stubs/megatron/core/layer.pyi: nothing in art uses megatron.core.layer: remove the" in (
        "\n".join(problems)
    )


def test_a_field_given_by_a_dict_is_used(check: Check) -> None:
    stub = STUB.replace("config: Config\n", "config: Config\n        size: int\n")
    assert check(USE + "    options = {'size': 1}\n", stub) == ([], [])


def test_a_made_class_with_its_constructor_passes(check: Check) -> None:
    stub = STUB.replace("config: Config\n", "config: Config\n        def __init__(self): ...\n")
    assert check(USE + "    Layer()\n", stub) == ([], [])
