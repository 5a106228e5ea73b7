"""Agreement of ``stubs/`` with the installed megatron-core: a change upstream fails here.

mypy's stubtest compares modules, classes, functions, parameters and defaults. It sees neither the
attributes that are set in ``__init__`` nor types: two tests here compare those.
"""

import ast
import importlib
import inspect
import re
import sys
import textwrap
import types
import typing
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.processes import ROOT, run

STUBS = ROOT / "stubs"
ALLOWLIST = Path(__file__).with_name("stubtest_allowlist.txt")
SOURCES = {
    ".".join(path.relative_to(STUBS).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(STUBS.glob("megatron/**/*.pyi"))
}
CLASSES = [
    pytest.param(module, cls, id=f"{module}.{cls.name}")
    for module, path in SOURCES.items()
    for cls in ast.parse(path.read_text(encoding="utf-8")).body
    if isinstance(cls, ast.ClassDef) and not cls.name.startswith("_")
]


@pytest.fixture(scope="module")
def stubtest(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The reports of stubtest by module; those under ``""`` belong to none."""
    config = tmp_path_factory.mktemp("stubtest") / "mypy.ini"
    # Without torch's types, which take a minute to read, each class has only its own members.
    config.write_text(
        f"[mypy]\nmypy_path = {STUBS}\n"
        "[mypy-torch.*]\nfollow_imports = skip\nignore_missing_imports = True\n"
    )
    command = [sys.executable, "-m", "mypy.stubtest", "--mypy-config-file", str(config)]
    # The stubs have only the part of each module that art uses.
    command += ["--ignore-missing-stub", "--allowlist", str(ALLOWLIST), "--concise"]
    result = run(*command, "megatron.core", status=None, timeout=300, cwd=config.parent)
    reports: dict[str, list[str]] = {"": []}
    for line in result.stdout.splitlines():
        name = line.partition(" ")[0]
        module = max((m for m in SOURCES if f"{name}.".startswith(f"{m}.")), key=len, default="")
        reports.setdefault(module, []).append(line)
    if result.returncode not in (0, 1) or (result.returncode and not result.stdout):
        reports[""].append(result.stderr)
    return reports


def test_the_version_is_the_one_that_the_extra_pins() -> None:
    pin = f"megatron-core=={version('megatron-core')}"
    assert pin in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_stubtest_runs_and_every_line_of_the_allowlist_is_needed(
    stubtest: dict[str, list[str]],
) -> None:
    assert not stubtest[""], (
        "\n".join(stubtest[""]) + f"\n(an unused entry: take it out of {ALLOWLIST.name})"
    )


@pytest.mark.parametrize("module", SOURCES)
def test_a_stub_agrees_with_megatron(module: str, stubtest: dict[str, list[str]]) -> None:
    problems = stubtest.get(module, [])
    assert not problems, (
        "\n".join(problems) + f"\nmegatron-core {version('megatron-core')} says otherwise than "
        f"{SOURCES[module].relative_to(ROOT)}: correct the stub. If only an __init__ is named "
        f"and art makes no such object, add a line to {ALLOWLIST.name}."
    )


@pytest.mark.parametrize(("module", "cls"), CLASSES)
def test_instances_have_the_attributes_of_the_stub(module: str, cls: ast.ClassDef) -> None:
    runtime = getattr(importlib.import_module(module), cls.name)
    set_there = set(_attributes_set_by(runtime))
    for attribute in _annotations(cls):
        assert hasattr(runtime, attribute) or attribute in set_there, (
            f"no {cls.name}.{attribute} in megatron-core"
        )


@pytest.mark.parametrize(("module", "cls"), CLASSES)
def test_fields_have_the_types_of_the_stub(module: str, cls: ast.ClassDef) -> None:
    """For dataclasses, whose fields upstream annotates."""
    runtime = getattr(importlib.import_module(module), cls.name)
    if not hasattr(runtime, "__dataclass_fields__"):
        return
    upstream = typing.get_type_hints(runtime)
    for attribute, annotation in _annotations(cls).items():
        ours = eval(annotation, vars(importlib.import_module(module)) | vars(typing))
        assert _parts(ours) == _parts(upstream[attribute]), attribute


@pytest.mark.parametrize(("module", "cls"), CLASSES)
def test_the_allowlist_hides_no_constructor_that_a_stub_has(module: str, cls: ast.ClassDef) -> None:
    """If a stub has a part of a constructor, each of its parameters is upstream's."""
    methods = {node.name: node for node in cls.body if isinstance(node, ast.FunctionDef)}
    constructor = methods.get("__init__")
    name = f"{module}.{cls.name}.__init__"
    lines = ALLOWLIST.read_text(encoding="utf-8").splitlines()
    if constructor is None or not any(re.fullmatch(line, name) for line in lines if line):
        return
    runtime = getattr(importlib.import_module(module), cls.name)
    upstream = inspect.signature(runtime.__init__).parameters
    arguments = constructor.args
    for argument in (*arguments.args, *arguments.kwonlyargs):
        assert argument.arg in upstream, f"{name} takes no {argument.arg}"
    given = {argument.arg for argument in (*arguments.args, *arguments.kwonlyargs)}
    required = {
        key
        for key, parameter in upstream.items()
        if parameter.default is parameter.empty and parameter.kind != parameter.VAR_KEYWORD
    }
    assert required <= given, f"{name} must be given {required - given}"


MISUSE = """
    from megatron.core.models.gpt import GPTModel
    from megatron.core.transformer import TransformerConfig
    from megatron.core.transformer.mlp import MLPP
    from megatron.core.transformer.no_module import Name

    def use(model: GPTModel, config: TransformerConfig) -> None:
        print(model.config.num_layers, model.eval())
        model.decodr
        config.num_layer
        for layer in model.decoder.layers:
            print(layer.layer_number)
            layer.self_atention
"""


def test_mypy_refuses_what_the_stubs_lack(tmp_path: Path) -> None:
    """A missing stub must not turn the values that come from it into Any."""
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(MISUSE))
    command = (sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", program)
    result = run(*command, status=None, timeout=600, cwd=ROOT)
    found = re.findall(r"program\.py:(\d+): error: .*\[(.+)\]", result.stdout)
    assert found == [
        ("4", "attr-defined"),
        ("5", "import-untyped"),
        ("9", "attr-defined"),
        ("10", "attr-defined"),
        ("13", "attr-defined"),
    ], result.stdout


def _parts(annotation: object) -> object:
    """Split an annotation, so that ``List[int] | None`` equals ``Optional[list[int]]``."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is None or origin is typing.Literal:
        return annotation
    if origin in (typing.Union, types.UnionType):
        return frozenset(map(_parts, arguments))
    return origin, tuple(map(_parts, arguments))


def _annotations(cls: ast.ClassDef) -> dict[str, str]:
    """List annotated attributes; a ``None`` instead of a type removes one of torch's."""
    return {
        ast.unparse(node.target): ast.unparse(node.annotation)
        for node in cls.body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) != "None"
    }


def _attributes_set_by(runtime: type) -> Iterator[str]:
    """List the attributes that a class, or a base of it, annotates or sets on ``self``."""
    for cls in runtime.__mro__:
        if not cls.__module__.startswith("megatron"):
            continue
        yield from inspect.get_annotations(cls)
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(cls)))):
            if not isinstance(node, ast.Attribute) or not isinstance(node.ctx, ast.Store):
                continue
            if ast.unparse(node.value) == "self":
                yield node.attr
