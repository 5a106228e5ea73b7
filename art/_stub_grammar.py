"""Check the stubs of lazy packages: ``python -m art._stub_grammar [FOLDER …]``.

:func:`art._lazy.attach` reads a stub line by line, which is only safe while every line has the
one form ``from .module import Name as Name``. This module holds stubs to that form, and each name
to what its module defines. It is run by ``make check``; nothing at run time needs it.
"""

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_LINE = re.compile(r"from (?P<module>\.[A-Za-z0-9_.]*) import (?P<name>\w+) as (?P<alias>\w+)")


class Fault(NamedTuple):
    """One fault in a stub: where, and what to write instead."""

    path: Path
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


def check_stub(path: Path) -> Iterator[Fault]:
    """Yield the faults of one ``__init__.pyi``.

    Args:
        path: The stub. Its package's modules lie beside it.
    """
    first_line_of: dict[str, int] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None or not line.isascii():
            yield Fault(path, number, f"write `from .module import Name as Name`, not `{line}`")
            continue
        module, name, alias = match.group("module", "name", "alias")
        if name != alias:
            yield Fault(path, number, f"`{name}` is exported under another name, `{alias}`")
            continue
        if name in first_line_of:
            yield Fault(path, number, f"`{name}` stands already in line {first_line_of[name]}")
        first_line_of.setdefault(name, number)
        fault = _fault_of_target(path.parent, module, name)
        if fault is not None:
            yield Fault(path, number, fault)


def _fault_of_target(package: Path, module: str, name: str) -> str | None:
    """Say what is wrong with the address of a name, if anything is."""
    parts = module.removeprefix(".").split(".")
    if module == ".":
        source = _source_of(package / name)
        return None if source is not None else f"there is no submodule `{name}`"
    if parts[0] == name:
        return f"`{name}` is also the submodule that defines it: rename one"
    source = _source_of(package.joinpath(*parts))
    if source is None:
        return f"there is no module `{module}`"
    if source.name != "__init__.py" and name not in _top_level_names(source):
        return f"`{module}` does not define `{name}`"
    return None


def _source_of(path: Path) -> Path | None:
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _top_level_names(source: Path) -> set[str]:
    """The names that a module binds at its top level."""
    names: set[str] = set()
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                names.update(n.id for n in ast.walk(target) if isinstance(n, ast.Name))
    return names


def main(arguments: list[str] | None = None) -> int:
    """Check every stub below the folders given; 1 when any has a fault."""
    parser = argparse.ArgumentParser(
        prog="python -m art._stub_grammar",
        description="Check the stubs (__init__.pyi) of lazy packages.",
        epilog="example: python -m art._stub_grammar art",
    )
    parser.add_argument("folders", nargs="*", type=Path, default=[Path("art")])
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
