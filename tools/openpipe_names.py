"""The public names of OpenPipe's ART, read from its source: ``python -m tools.openpipe_names``.

Names and parameters alone, by ``ast``: nothing of it is imported, and no text of it is kept. The
list is committed (``tools/openpipe_names.json``); ``tools/openpipe_page.py`` compares art with it.
"""

import argparse
import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path

# Packages whose `__all__` is public, and modules of which every public name is.
_EXPORTING = (
    "art", "art.dev", "art.langgraph", "art.local", "art.mcp", "art.pipeline_trainer",
    "art.rewards", "art.serverless", "art.tinker", "art.tinker_native", "art.utils",
)  # fmt: skip
_MODULES = (
    "art.api_costs", "art.backend", "art.batches", "art.costs", "art.errors", "art.gather",
    "art.metrics", "art.trajectories", "art.types", "art.utils.sft",
)  # fmt: skip
# Classes whose methods are called by users.
_CLASSES = (
    "art.Model", "art.TrainableModel", "art.Trajectory", "art.TrajectoryGroup",
    "art.local.LocalBackend", "art.mcp.GeneratedScenarioCollection", "art.mcp.MCPTool",
    "art.metrics.MetricsBuilder", "art.trajectories.History",
)  # fmt: skip

Parameters = list[str] | None


class Source:
    """The source of a package ``art``.

    Args:
        root: The folder of the package.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def module(self, name: str) -> ast.Module:
        """Parse a module."""
        path = self._root.joinpath(*name.split(".")[1:])
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        return ast.parse(path.read_text(encoding="utf-8"))

    def exported(self, package: str) -> list[str]:
        """List the names of a package's ``__all__``."""
        for statement in self.module(package).body:
            match statement:
                case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                    return list(ast.literal_eval(value))
        raise SystemExit(f"{package} has no __all__")

    def definition(self, module: str, name: str) -> ast.stmt | None:
        """Find where a name of a module is defined; ``None`` for a module or what is computed."""
        is_package = self._root.joinpath(*module.split(".")[1:]).is_dir()
        found: ast.stmt | None = None
        for statement in ast.walk(self.module(module)):
            match statement:
                case ast.ClassDef(name=defined) | ast.FunctionDef(name=defined) if defined == name:
                    return statement
                case ast.AsyncFunctionDef(name=defined) if defined == name:
                    return statement
                case ast.ImportFrom(names=aliases) if any(each.name == name for each in aliases):
                    home = _absolute(statement, module, is_package=is_package)
                    if home.startswith("art") and not self._is_module(f"{home}.{name}", home):
                        found = self.definition(home, name) or found
        return found

    def _is_module(self, name: str, home: str) -> bool:
        path = self._root.joinpath(*name.split(".")[1:])
        if home == name.rpartition(".")[0] and path.with_suffix(".py").is_file():
            return home == "art"
        return path.is_dir()


def _absolute(statement: ast.ImportFrom, module: str, *, is_package: bool) -> str:
    if not statement.level:
        return statement.module or ""
    base = module.split(".")
    base = base[: len(base) - statement.level + is_package]
    return ".".join([*base, *([statement.module] if statement.module else [])])


def _parameters(definition: ast.stmt | None) -> Parameters:
    match definition:
        case ast.FunctionDef(args=args) | ast.AsyncFunctionDef(args=args):
            names = [each.arg for each in (*args.posonlyargs, *args.args, *args.kwonlyargs)]
            return [each for each in names if each not in ("self", "cls")]
        case ast.ClassDef(body=body):
            for statement in body:
                if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
                    names = _parameters(statement) or []
                    return [each for each in names if not each.startswith("_")]
            fields = [each.target for each in body if isinstance(each, ast.AnnAssign)]
            names = [each.id for each in fields if isinstance(each, ast.Name)]
            return [each for each in names if not each.startswith("_")]
    return None


def public_names(source: Source) -> Iterator[tuple[str, Parameters]]:
    """Yield each public name with the parameters of its call; ``None`` where it has none."""
    for package in _EXPORTING:
        for name in source.exported(package):
            yield f"{package}.{name}", _parameters(source.definition(package, name))
    for module in _MODULES:
        for statement in source.module(module).body:
            match statement:
                case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                    yield f"{module}.{name}", _parameters(statement)
                case ast.AsyncFunctionDef(name=name):
                    yield f"{module}.{name}", _parameters(statement)
                case (
                    ast.Assign(targets=[ast.Name(id=name)])
                    | ast.AnnAssign(target=ast.Name(id=name))
                ):
                    yield f"{module}.{name}", None
    for path in _CLASSES:
        module, _, name = path.rpartition(".")
        definition = source.definition(module, name)
        assert isinstance(definition, ast.ClassDef), path
        for statement in definition.body:
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path}.{statement.name}", _parameters(statement)


def commands(source: Source) -> Iterator[str]:
    """Yield the commands of its command line."""
    for statement in source.module("art.cli").body:
        if isinstance(statement, ast.FunctionDef):
            for decorator in statement.decorator_list:
                match decorator:
                    case ast.Call(func=ast.Attribute(attr="command"), keywords=keywords):
                        named = [each.value for each in keywords if each.arg == "name"]
                        name = ast.literal_eval(named[0]) if named else statement.name
                        yield f"`art {name.replace('_', '-')}`"


def main(arguments: list[str] | None = None) -> int:
    """Write the list to standard output."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.openpipe_names",
        description="List the public names of OpenPipe's ART from its source.",
        epilog="example: pip install --no-deps --target there openpipe-art==0.5.18;"
        " python -m tools.openpipe_names 0.5.18 there/art > tools/openpipe_names.json",
    )
    parser.add_argument("version", help="its version")
    parser.add_argument("source", type=Path, help="the folder of its package art")
    options = parser.parse_args(arguments)
    names = {
        name: parameters
        for name, parameters in public_names(Source(options.source))
        if not name.rpartition(".")[2].startswith("_") and len(name.rpartition(".")[2]) > 1
    }
    names |= dict.fromkeys(commands(Source(options.source)))
    lines = [f"    {json.dumps(name)}: {json.dumps(names[name])}" for name in sorted(names)]
    text = ",\n".join(lines)
    sys.stdout.write(
        f'{{\n  "version": {json.dumps(options.version)},\n  "names": {{\n{text}\n  }}\n}}\n'
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
