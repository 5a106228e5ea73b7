"""mypy --strict and basedpyright on a user's scripts, against the installed wheel."""

import json
import re
import shutil
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.processes import ROOT, run

from .conftest import Installation
from .public_names import WITH_ENGINE_TYPES, lazy_packages, listing

PACKAGES = lazy_packages()
PROGRAMS = sorted((Path(__file__).parent / "programs").glob("*.py"))


class Remark(NamedTuple):
    """One thing that a type checker says: an ``error``, or a ``note`` such as a revealed type."""

    line: int
    severity: str
    message: str


Remarks = dict[str, list[Remark]]
"""By the file's name."""


@pytest.fixture(scope="module")
def scripts(workspace: Path) -> Path:
    """One folder with all scripts, so that each checker reads the libraries only once."""
    folder = workspace / "scripts"
    folder.mkdir()
    for program in PROGRAMS:
        shutil.copy(program, folder)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", readme, re.M | re.S)):
        (folder / f"readme_{number}.py").write_text(block, encoding="utf-8")
    for package, names in PACKAGES.items():
        module = package.replace(".", "_")
        misspelt = "".join(f"from {package} import {misspell(name)}\n" for name in names)
        (folder / f"misspelt_{module}.py").write_text(misspelt, encoding="utf-8")
        revealed = "".join(f"reveal_type({package}.{name})\n" for name in names)
        (folder / f"revealed_{module}.py").write_text(f"import {package}\n{revealed}", "utf-8")
    return folder


def misspell(name: str) -> str:
    """Two letters swapped, as a hurried hand does."""
    return name[:-2] + name[-1] + name[-2] if name[-1] != name[-2] else name + name[-1]


@pytest.fixture(scope="module", params=["mypy", "basedpyright"])
def remarks(request: pytest.FixtureRequest, installation: Installation, scripts: Path) -> Remarks:
    return {"mypy": run_mypy, "basedpyright": run_basedpyright}[request.param](
        installation, scripts
    )


def run_mypy(installation: Installation, scripts: Path) -> Remarks:
    config = scripts / "mypy.ini"
    # transformers would be half the work, and no public name of art has a type of its.
    config.write_text("[mypy]\n[mypy-transformers.*]\nfollow_imports = skip\n", encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--output=json"]
    command += ["--config-file", str(config)]
    command += ["--python-executable", str(installation.python), str(scripts)]
    result = run(*command, cwd=scripts, timeout=300, status=None)
    assert result.returncode in {0, 1}, result.stdout[-2000:] + result.stderr
    remarks: Remarks = defaultdict(list)
    for line in result.stdout.splitlines():
        each = json.loads(line)
        remark = Remark(each["line"], each["severity"], each["message"])
        remarks[Path(each["file"]).name].append(remark)
    return remarks


def run_basedpyright(installation: Installation, scripts: Path) -> Remarks:
    # "strict" is pyright's own; basedpyright's "recommended" adds warnings of taste.
    (scripts / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}', "utf-8")
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--project", str(scripts)]
    command += ["--pythonpath", str(installation.python)]
    result = run(*command, cwd=scripts, timeout=300, status=None)
    assert result.returncode in {0, 1}, result.stdout[-2000:] + result.stderr
    remarks: Remarks = defaultdict(list)
    for each in json.loads(result.stdout)["generalDiagnostics"]:
        severity = "note" if each["severity"] == "information" else each["severity"]
        remark = Remark(each["range"]["start"]["line"] + 1, severity, each["message"])
        remarks[Path(each["file"]).name].append(remark)
    return remarks


def test_users_scripts_are_clean(remarks: Remarks, scripts: Path) -> None:
    names = {path.name for path in scripts.glob("*.py")}
    users = {name for name in names if not name.startswith(("misspelt_", "revealed_"))}
    assert users > {"readme_0.py", "tinker_client.py"}
    wrong = {
        f"{name}:{remark.line}": remark.message
        for name in sorted(users)
        for remark in remarks.get(name, [])
    }
    assert not wrong, listing(wrong)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_misspelt_import_is_an_error(remarks: Remarks, package: str) -> None:
    found = remarks[f"misspelt_{package.replace('.', '_')}.py"]
    wrong = {
        name: f"{misspell(name)} passes"
        for line, name in enumerate(PACKAGES[package], start=1)
        if not any(
            remark.line == line and remark.severity == "error" and misspell(name) in remark.message
            for remark in found
        )
    }
    assert not wrong, listing(wrong)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_has_a_type(remarks: Remarks, package: str) -> None:
    found = remarks[f"revealed_{package.replace('.', '_')}.py"]
    wrong = {}
    for line, name in enumerate(PACKAGES[package], start=2):
        said = [remark for remark in found if remark.line == line]
        types = [
            remark.message.split(" is ", 1)[-1] for remark in said if remark.severity == "note"
        ]
        errors = [
            remark.message
            for remark in said
            if remark.severity == "error"
            and not (package in WITH_ENGINE_TYPES and "is partially unknown" in remark.message)
        ]
        if errors or len(types) != 1 or types[0].strip('"') in {"Any", "Unknown"}:
            wrong[name] = str(errors or types)
    assert not wrong, listing(wrong)
