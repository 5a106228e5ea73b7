"""Check the stubs of lazy packages: ``python -m art._stub_grammar [--fix] [FOLDER …]``.

:func:`art._lazy.attach` reads a stub line by line, which is only safe while every line has the
one form ``from .module import Name as Name``. This module holds stubs to that form, in the order
that ruff sorts imports by, and each name to what its module defines. ``make check`` runs it;
nothing at run time needs it.
"""

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_FORM = "`from .module import Name as Name`"
_LINE = re.compile(
    r"from \.(?P<module>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*|) import (?P<name>\w+) as (?P<alias>\w+)",
    re.ASCII,
)


class Fault(NamedTuple):
    """One fault in a stub: where, and what to write instead."""

    path: Path
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


class Export(NamedTuple):
    """One name of a stub, the module that it comes from, and the comment lines above it.

    ``module`` is relative to the package: ``"tinker.backend"``; ``""`` for a submodule.
    """

    module: str
    name: str
    line: int
    comments: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"from .{self.module} import {self.name} as {self.name}"


def check_stub(path: Path) -> Iterator[Fault]:
    """Yield the faults of one ``__init__.pyi``.

    Args:
        path: The stub. Its package's modules lie beside it.
    """
    text = path.read_text(encoding="utf-8")
    try:
        statements = ast.parse(text).body
    except SyntaxError as error:
        yield Fault(path, error.lineno or 1, f"not Python: {error.msg}")
        return
    statement_at = {each.lineno: each for each in reversed(statements)}
    exports: list[Export] = []
    end_of_statement = 0
    for number, line in enumerate(text.splitlines(), start=1):
        if number <= end_of_statement or not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None or match["name"] != match["alias"]:
            # What is inside of a wrong statement is no fault of its own.
            statement = statement_at.get(number)
            end_of_statement = (statement.end_lineno if statement else None) or number
            yield Fault(path, number, _fault_of_form(statement, line))
        else:
            exports.append(Export(match["module"], match["name"], number))
    yield from _faults_of_exports(path, exports)


def _fault_of_form(statement: ast.stmt | None, line: str) -> str:
    """Say what is wrong with a line that has not the one form."""
    instead = f"write {_FORM}, not `{line.strip()}`"
    if isinstance(statement, ast.If):
        return f"a guard (`{line.strip()}`) is not evaluated, its names always exist: {instead}"
    if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return f"a stub defines nothing, it lists what modules define: {instead}"
    if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
        if line.startswith("__all__"):
            return f"`__all__` is made from the lines of the stub: leave it out; {instead}"
        return f"a stub defines nothing, it lists what modules define: {instead}"
    if isinstance(statement, ast.Import):
        return f"a module of elsewhere is no name of this package: {instead}"
    if isinstance(statement, ast.ImportFrom):
        return f"{_fault_of_import(statement)}: {instead}"
    return instead


def _fault_of_import(statement: ast.ImportFrom) -> str:
    names = statement.names
    if not all((statement.module or "").isascii() and alias.name.isascii() for alias in names):
        return "names are ASCII"
    if statement.level != 1:
        where = "outside of the package" if statement.level else "absolute"
        return f"the import is {where}, and lazy names come from the package's own modules"
    if names[0].name == "*":
        return "`*` hides the names that the stub is there to list"
    if len(names) > 1:
        return "one name a line"
    if names[0].asname is None:
        return f"without `as {names[0].name}` no editor completes the name"
    if names[0].asname != names[0].name:
        return f"`{names[0].name}` is exported under another name, `{names[0].asname}`"
    return "one line, one space between words, no comment behind"


def _faults_of_exports(path: Path, exports: list[Export]) -> Iterator[Fault]:
    first_line_of: dict[str, int] = {}
    previous: Export | None = None
    for export in exports:
        if export.name in first_line_of:
            message = f"`{export.name}` stands already in line {first_line_of[export.name]}"
            yield Fault(path, export.line, message)
        elif previous is not None and _order(export) < _order(previous):
            yield Fault(path, export.line, f"`{export.name}` is out of order: --fix sorts")
        first_line_of.setdefault(export.name, export.line)
        previous = export
        fault = _fault_of_target(path.parent, export)
        if fault is not None:
            yield Fault(path, export.line, fault)


def _fault_of_target(package: Path, export: Export) -> str | None:
    """Say what is wrong with the address of a name, if anything is."""
    name, module = export.name, export.module
    if not module:
        source = _source_of(package / name)
        return None if source is not None else f"there is no submodule `{name}`"
    if module.split(".")[0] == name:
        return f"`{name}` is also the submodule that defines it: rename one"
    if _source_of(package / name) is not None:
        return f"`{name}` is also a submodule, whose import would replace it: rename one"
    source = _source_of(package.joinpath(*module.split(".")))
    if source is None:
        return f"there is no module `.{module}`"
    if source.name != "__init__.py" and name not in _names_bound(source):
        return f"`.{module}` does not define `{name}`"
    return None


def _source_of(path: Path) -> Path | None:
    for candidate in (path.with_name(f"{path.name}.py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _names_bound(source: Path) -> set[str]:
    """The names that a module binds at its top level, in guards and `try` blocks too."""
    names: set[str] = set()
    waiting = list(ast.parse(source.read_text(encoding="utf-8")).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                names.update(n.id for n in ast.walk(target) if isinstance(n, ast.Name))
        else:
            waiting += [each for each in ast.iter_child_nodes(node) if isinstance(each, ast.stmt)]
    return names


def _order(export: Export) -> tuple[object, ...]:
    """Where ruff's isort rules put an import: by module, then constants, classes, the rest."""
    name = export.name
    is_constant = len(name) > 1 and name.isupper()
    kind = (not is_constant, not name[0].isupper())
    return (_natural(export.module), kind, _natural(name))


def _natural(text: str) -> list[tuple[int, int]]:
    """A sort key in which ``qwen3`` comes before ``qwen10``."""
    runs = re.findall(r"\d+|\D", text)
    return [(ord("0"), int(run)) if run.isdigit() else (ord(run), 0) for run in runs]


def fix_stub(path: Path) -> bool:
    """Rewrite one ``__init__.pyi`` in the one form, where nothing has to be guessed.

    Names are sorted, one a line, each with its ``as``; imports of the package by its full name
    become relative; a name that stands twice with one address stands once; an ``__all__`` that
    says what the lines say is dropped. Comments stay above the line that they stand above.
    A stub with anything else in it is left as it is, for :func:`check_stub` to name.

    Args:
        path: The stub.

    Returns:
        Whether the file was changed.
    """
    text = path.read_text(encoding="utf-8")
    exports = _exports_of(text, _full_name(path.parent))
    if exports is None:
        return False
    address_of = {export.name: export for export in reversed(exports)}
    if any(export.module != address_of[export.name].module for export in exports):
        return False
    old_lines = text.splitlines()
    # The comments that open the file are not those of the name that happens to stand first.
    lines = _comments_above(old_lines, exports[0].line) if exports else []
    for export in sorted(address_of.values(), key=_order):
        lines += [*export.comments, str(export)]
    lines += _comments_above(old_lines, len(old_lines) + 1)
    fixed = "".join(f"{line}\n" for line in lines)
    if fixed != text:
        path.write_text(fixed, encoding="utf-8")
    return fixed != text


def _exports_of(text: str, package: str) -> list[Export] | None:
    """What a stub exports, whatever its form; None where that cannot be said for certain."""
    if not text.isascii():
        return None
    try:
        statements = ast.parse(text).body
    except SyntaxError:
        return None
    lines = text.splitlines()
    exports: list[Export] = []
    said: set[str] | None = None
    for statement in statements:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__":
            try:
                said = set(ast.literal_eval(statement.value))
            except (ValueError, TypeError):
                return None
            continue
        module = _module_of(statement, package)
        if module is None or not isinstance(statement, ast.ImportFrom):
            return None
        comments = _comments_above(lines, statement.lineno) if exports else []
        comments += [
            line[line.index("#") :].rstrip()
            for line in lines[statement.lineno - 1 : statement.end_lineno]
            if "#" in line
        ]
        for alias in statement.names:
            if alias.name == "*" or alias.asname not in (None, alias.name):
                return None
            exports.append(Export(module, alias.name, statement.lineno, tuple(comments)))
            comments = []
    if said is not None and said != {export.name for export in exports}:
        return None
    return exports


def _module_of(statement: ast.stmt, package: str) -> str | None:
    if not isinstance(statement, ast.ImportFrom):
        return None
    if statement.level == 1:
        return statement.module or ""
    if statement.level == 0 and f"{statement.module}.".startswith(f"{package}."):
        return (statement.module or "")[len(package) + 1 :]
    return None


def _full_name(package: Path) -> str:
    parts = [package.resolve().name]
    for folder in package.resolve().parents:
        if not (folder / "__init__.py").is_file():
            break
        parts.append(folder.name)
    return ".".join(reversed(parts))


def _comments_above(lines: list[str], line: int) -> list[str]:
    above: list[str] = []
    for text in reversed(lines[: line - 1]):
        if text and not text.startswith("#"):
            break
        above += [text] if text else []
    return above[::-1]


def main(arguments: list[str] | None = None) -> int:
    """Check every stub below the folders given; 1 when any has a fault."""
    parser = argparse.ArgumentParser(
        prog="python -m art._stub_grammar",
        description="Check the stubs (__init__.pyi) of lazy packages.",
        epilog="example: python -m art._stub_grammar --fix art",
    )
    parser.add_argument("folders", nargs="*", type=Path, default=[Path("art")])
    parser.add_argument(
        "--fix", action="store_true", help="first rewrite what has the wrong form or order"
    )
    options = parser.parse_args(arguments)
    stubs = sorted(stub for folder in options.folders for stub in folder.rglob("__init__.pyi"))
    if not stubs:
        parser.error(f"no __init__.pyi below {', '.join(map(str, options.folders))}")
    if options.fix:
        for stub in filter(fix_stub, stubs):
            sys.stderr.write(f"{stub}: rewritten\n")
    faults = [fault for stub in stubs for fault in check_stub(stub)]
    for fault in faults:
        sys.stderr.write(f"{fault}\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
