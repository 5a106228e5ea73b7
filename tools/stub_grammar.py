"""The form of the stubs of lazy packages, and their addresses: ``python -m tools.stub_grammar``.

:func:`art._lazy.attach` reads a stub line by line, which is safe while every line has the one form
``from .module import Name as Name``; a module of a package above has more dots. ruff checks order
and duplicates (``tools/stubs.toml``); this checks the form of each line, and that each module
defines its name.
"""

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_LINE = re.compile(
    r"from \.(?P<above>\.*)(?P<module>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*|)"
    r" import (?P<name>\w+) as (?P=name)",
    re.ASCII,
)


class Fault(NamedTuple):
    """A fault in a stub, with its place."""

    path: Path
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


def check_stub(path: Path) -> Iterator[Fault]:
    """Yield the faults of one ``__init__.pyi``.

    Args:
        path: The stub. The modules of its package lie beside it.
    """
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            message = f"write `from .module import Name as Name`, not `{line}`"
        else:
            message = _wrong_address(
                path.parent, len(match["above"]), match["module"], match["name"]
            )
        if message:
            yield Fault(path, number, message)


def _wrong_address(package: Path, above: int, module: str, name: str) -> str:
    """Say what is wrong with the module of a name; nothing, if it is right.

    Args:
        package: The folder of the package.
        above: How many packages above it the module lies in.
        module: The module, without leading dots.
        name: The name.
    """
    is_submodule = _source(package / name) is not None
    if not module:
        if above:
            return "name the module that it comes from, not a package above"
        return "" if is_submodule else f"there is no submodule `{name}`"
    if is_submodule:
        return f"`{name}` is also a submodule, whose import would replace it: rename one"
    dots = "." * (above + 1)
    home = package.resolve().parents[above - 1] if above else package
    source = _source(home.joinpath(*module.split(".")))
    if source is None:
        return f"there is no module `{dots}{module}`"
    # The names of a lazy package are in its own stub.
    if source.name != "__init__.py" and name not in _names_bound(source):
        return f"`{dots}{module}` does not define `{name}`"
    return ""


def _source(module: Path) -> Path | None:
    candidates = (module.with_name(f"{module.name}.py"), module / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


def _names_bound(source: Path) -> set[str]:
    """List the names that a module binds at its top level, in guards and `try` blocks too."""
    names: set[str] = set()
    waiting: list[ast.AST] = list(ast.parse(source.read_text(encoding="utf-8")).body)
    while waiting:
        match waiting.pop():
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef() as definition:
                names.add(definition.name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names.update(alias.asname or alias.name for alias in aliases)
            case ast.Assign() | ast.AnnAssign() as statement:
                stored = (node for node in ast.walk(statement) if isinstance(node, ast.Name))
                names.update(node.id for node in stored if isinstance(node.ctx, ast.Store))
            case statement:
                children = ast.iter_child_nodes(statement)
                waiting += [each for each in children if not isinstance(each, ast.expr)]
    return names


def main(arguments: list[str] | None = None) -> int:
    """Check every stub below the folders given; 1 when any has a fault."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.stub_grammar",
        description="Check the stubs (__init__.pyi) of lazy packages.",
        epilog="example: python -m tools.stub_grammar art",
    )
    parser.add_argument("folders", nargs="+", type=Path)
    options = parser.parse_args(arguments)
    stubs = sorted(stub for folder in options.folders for stub in folder.rglob("__init__.pyi"))
    if not stubs:
        parser.error(f"no __init__.pyi below {', '.join(map(str, options.folders))}")
    faults = [fault for stub in stubs for fault in check_stub(stub)]
    for fault in faults:
        sys.stderr.write(f"{fault}\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
