"""mypy.stubtest: the stubs, and the annotations of what they name, against the run time."""

import re
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.processes import run

from .conftest import Installation
from .public_names import definition, lazy_packages

PACKAGES = lazy_packages()
CLIENT = {"art", "art.dev", "art.local", "art.megatron.model_support", "art.rl", "art.tinker"}

# What art stands on is not compared; reading it all would take a minute.
DEPENDENCIES = (
    "accelerate anyio fastapi gguf google httpx huggingface_hub megatron numpy openai peft rich "
    "safetensors starlette tinker tokenizers torch transformers uvicorn"
)
CONFIG = f"""
[mypy]
ignore_errors = True
ignore_missing_imports = True
[mypy-{",".join(f"{name}.*" for name in DEPENDENCIES.split())}]
follow_imports = skip
"""

# What stubtest says of correct code, and why.
ACCEPTED = {
    r"\S+ is not a recognised type alias": "an alias of a Literal with one value",
    r"\S+ is not a Union": "mypy reads Literal['a', 'b'] as a union",
    r"\S+\._\w+ variable differs from runtime type pydantic.fields.ModelPrivateAttr": "pydantic",
    r'\S+ is inconsistent, runtime does not have \*{1,2}\w+ parameter "(args|kwargs)"': "a cache",
    r"art\.trajectories\.TrajectoryGroup\.__new__ is inconsistent, runtime parameter "
    '"trajectories" has a default value but stub parameter does not': "the default is for pickle",
}


def test_the_stubs_agree_with_the_client(
    installation: Installation, workspace: Path, tmp_path: Path
) -> None:
    """Without an engine: what needs one says so, by the error that names its extra."""
    tools = tmp_path / "tools"
    tools.mkdir()
    link_distributions(tools, "mypy")
    said = stubtest(installation.python, workspace, PYTHONPATH=str(tools))
    needs_engine = {
        package for package in PACKAGES if f"{package} failed to import. MissingExtraError" in said
    }
    assert not needs_engine & CLIENT
    check(said, installation.site, PACKAGES.keys() - needs_engine)


@pytest.mark.skipif(
    find_spec("torch") is None or find_spec("megatron") is None, reason="needs the engines"
)
def test_the_stubs_agree_with_the_engines(
    installation: Installation, workspace: Path, tmp_path: Path
) -> None:
    (tmp_path / "art").symlink_to(installation.site / "art")
    path = str(tmp_path)
    said = stubtest(Path(sys.executable), workspace, PYTHONPATH=path, MYPYPATH=path)
    check(said, installation.site, {*PACKAGES})


def stubtest(python: Path, workspace: Path, **environment: str) -> str:
    config = workspace / "stubtest.ini"
    config.write_text(CONFIG, encoding="utf-8")
    command = (python, "-m", "mypy.stubtest", "art", "--concise", "--mypy-config-file", config)
    result = run(*command, cwd=workspace, env=environment, timeout=300, status=None)
    assert result.returncode in {0, 1}, result.stderr
    return result.stdout


def check(said: str, site: Path, compared: set[str]) -> None:
    """Hold stubtest's answer against the names of the packages that it could compare."""
    lines = said.splitlines()
    # `attach` makes `__all__`, and a stub's grammar has no room for one: the one line that is
    # said of every package, which proves that it was compared.
    silent = [each for each in compared if f"{each}.__all__ is not present in stub" not in lines]
    reasons = [line for line in lines if line.startswith(tuple(f"{each} " for each in silent))]
    assert not silent, "\n".join(reasons)
    public = public_names(site, compared)
    wrong = [
        line
        for line in lines
        if line.startswith(tuple(f"{name}{end}" for name in public for end in (" ", ".")))
        and not any(re.match(pattern, line) for pattern in ACCEPTED)
    ]
    assert not wrong, "\n".join(wrong)


def public_names(site: Path, packages: set[str]) -> set[str]:
    """The public names in full, both where they are exported and where they are defined."""
    exported, defined = set(), set()
    for package in packages:
        for name in PACKAGES[package]:
            found = definition(site, package, name)
            if found.kind != "module":
                module = found.path.relative_to(site).with_suffix("").parts
                exported.add(f"{package}.{name}")
                defined.add(".".join([*module, name]))
    return exported | defined


def link_distributions(folder: Path, root: str) -> None:
    """Lend a distribution and what it requires to another environment, and nothing else."""
    for each in requirements(root, set()):
        tops = {file.parts[0] for file in each.files or () if file.parts[0] != ".."}
        for top in tops - {"__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(Path(str(each.locate_file(top))))


def requirements(name: str, seen: set[str]) -> Iterator[Distribution]:
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return  # for another platform or Python
    if name in seen:
        return
    seen.add(name)
    yield found
    for requirement in found.requires or ():
        if "extra ==" not in requirement:
            yield from requirements(re.split(r"[^\w.-]", requirement, maxsplit=1)[0], seen)
