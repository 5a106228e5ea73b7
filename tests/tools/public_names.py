"""What every tool must find: the names in the stubs, and where and how each is defined.

The answers come from ``ast`` on the installed sources, never from an import, so they are the same
whether or not the engine that a module needs is there. No tool under test has a part in them.
"""

import ast
import inspect
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

from tests.processes import ROOT

# Packages whose functions take and return what torch, megatron and LangChain define. The tools
# under test see none of them, so those types are unknown to them there, and there alone.
WITH_ENGINE_TYPES = {"art.langgraph", "art.megatron"}


class Definition(NamedTuple):
    """Where one public name is defined, and what a tool should say of it."""

    path: Path
    line: int
    kind: Literal["class", "function", "module", "typed dict", "value"]
    docstring: str
    parameters: tuple[str, ...] = ()
    """What a call takes: a function's parameters; a class's, or the fields that make them."""

    def is_at(self, places: set[tuple[Path, int]]) -> bool:
        """Whether a tool jumps here and nowhere else; for a package, its stub will do too."""
        here = (self.path.with_suffix(".py"), self.line)
        return {(path.with_suffix(".py"), line) for path, line in places} == {here}


def lazy_packages() -> dict[str, list[str]]:
    """The public names of each lazy package: ``{"art.rl": ["group_advantages", …], …}``."""
    packages = {}
    for stub in sorted((ROOT / "art").rglob("__init__.pyi")):
        names = [
            alias.asname or alias.name
            for statement in ast.parse(stub.read_text(encoding="utf-8")).body
            if isinstance(statement, ast.ImportFrom)
            for alias in statement.names
        ]
        if names:
            packages[".".join(stub.parent.relative_to(ROOT).parts)] = names
    return packages


def listing(wrong: dict[str, str]) -> str:
    """One line for each name that a tool gets wrong."""
    return "\n".join(f"{name}: {what}" for name, what in wrong.items())


def import_each(package: str, names: list[str]) -> str:
    """A program that imports each name on a line of its own, then calls each on another.

    From 0, name ``i`` stands in line ``i + 1`` from column 4 and its call in line
    ``i + len(names) + 2`` from column 0.
    """
    imports = "".join(f"    {name},\n" for name in names)
    calls = "".join(f"{name}()\n" for name in names)
    return f"from {package} import (\n{imports})\n{calls}"


def definition(site: Path, package: str, name: str) -> Definition:
    """Find where a public name of a package is defined, through every import on the way.

    Args:
        site: The folder that holds the installed ``art``.
        package: A lazy package, such as ``"art.dev"``.
        name: One of its public names.

    Raises:
        LookupError: The name leads to no definition among the installed sources of art.
    """
    module = package
    while (path := _file(site, module)) is not None:
        statement = _top_level(path).get(name)
        if statement is None:
            break
        if not isinstance(statement, ast.ImportFrom):
            return _describe(site, module, path, statement)
        module = _absolute(statement, module, is_package=path.stem == "__init__")
        name = next(each.name for each in statement.names if (each.asname or each.name) == name)
        submodule = _file(site, f"{module}.{name}")
        if submodule is not None:
            source = ast.parse(submodule.read_text(encoding="utf-8"))
            return Definition(submodule, 1, "module", ast.get_docstring(source) or "")
    raise LookupError(f"nothing installed defines {name} in {module}")


def _file(site: Path, module: str) -> Path | None:
    """What a type checker reads of a module: a lazy package's stub, or the source."""
    folder = site.joinpath(*module.split("."))
    candidates = [folder / "__init__.pyi", folder / "__init__.py", folder.with_suffix(".py")]
    return next((path for path in candidates if path.is_file()), None)


@cache
def _top_level(path: Path) -> dict[str, ast.stmt]:
    """Each name that a module defines or imports, with its last statement."""
    names: dict[str, ast.stmt] = {}
    waiting = ast.parse(path.read_text(encoding="utf-8")).body[::-1]
    while waiting:
        match statement := waiting.pop():
            case ast.If(test=ast.Name(id="TYPE_CHECKING"), body=body):
                waiting += body[::-1]
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                names[name] = statement
            case ast.AsyncFunctionDef(name=name) | ast.AnnAssign(target=ast.Name(id=name)):
                names[name] = statement
            case ast.Assign(targets=targets):
                names |= {each.id: statement for each in targets if isinstance(each, ast.Name)}
            case ast.ImportFrom(names=aliases):
                names |= {alias.asname or alias.name: statement for alias in aliases}
    return names


def _absolute(statement: ast.ImportFrom, module: str, *, is_package: bool) -> str:
    if not statement.level:
        return statement.module or ""
    base = module.split(".")
    base = base[: len(base) - statement.level + is_package]
    return ".".join([*base, *([statement.module] if statement.module else [])])


def _describe(site: Path, module: str, path: Path, statement: ast.stmt) -> Definition:
    match statement:
        case ast.ClassDef():
            kind, parameters = _constructor(site, module, statement)
            return Definition(path, statement.lineno, kind, _docstring(statement), parameters)
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            parameters = _parameters(statement)
            return Definition(path, statement.lineno, "function", _docstring(statement), parameters)
    return Definition(path, statement.lineno, "value", _docstring_of_value(path, statement))


def _constructor(
    site: Path, module: str, statement: ast.ClassDef
) -> tuple[Literal["class", "typed dict"], tuple[str, ...]]:
    """The kind of a class, and what making one of it takes."""
    bases = [ast.unparse(base).partition("[")[0] for base in statement.bases]
    decorators = [ast.unparse(each).partition("(")[0] for each in statement.decorator_list]
    kind: Literal["class", "typed dict"] = "typed dict" if "TypedDict" in bases else "class"
    has_fields = bool({"BaseModel", "NamedTuple", "TypedDict"} & {*bases})
    parameters: tuple[str, ...] = ()
    for base in bases:
        try:
            inherited = definition(site, module, base)
        except LookupError:
            continue  # a class of another distribution
        kind = "typed dict" if inherited.kind == "typed dict" else kind
        parameters += inherited.parameters
    overloaded = any(
        isinstance(each, ast.FunctionDef) and each.name == "__new__"
        for branch in statement.body
        if isinstance(branch, ast.If)
        for each in branch.body
    )
    for each in statement.body:
        match each:
            case ast.FunctionDef(name="__init__"):
                given = _parameters(each)[1:]
                # Tools read the overloads of `__new__`, which name every field of the class
                # itself; `**fields` are those of subclasses.
                return kind, tuple(
                    name for name in given if not (overloaded and name.startswith("**"))
                )
            case ast.AnnAssign(target=ast.Name(id=field)) if not field.startswith("_"):
                if has_fields or parameters or "dataclass" in decorators:
                    parameters += (field,)
    return kind, parameters


def _docstring(statement: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    return ast.get_docstring(statement) or ""


def _parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> tuple[str, ...]:
    given = function.args
    positional = [each.arg for each in given.posonlyargs + given.args]
    rest = [f"*{given.vararg.arg}"] if given.vararg else []
    keywords = [each.arg for each in given.kwonlyargs]
    extra = [f"**{given.kwarg.arg}"] if given.kwarg else []
    return (*positional, *rest, *keywords, *extra)


def _docstring_of_value(path: Path, statement: ast.stmt) -> str:
    """The string that follows an assignment, which editors show as its docstring."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    following = [each for each in body if each.lineno > statement.lineno][:1]
    match following:
        case [ast.Expr(value=ast.Constant(value=str(text)))]:
            return inspect.cleandoc(text)
    return ""
