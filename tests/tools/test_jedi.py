"""jedi, which completes in IPython, Jupyter, python-lsp-server and vim."""

from pathlib import Path

import jedi
import pytest

from .conftest import Installation
from .public_names import definition, import_each, lazy_packages, listing

PACKAGES = lazy_packages()

# Of a pydantic class with an `__init__` of its own jedi 0.20 shows the fields all the same.
# (Nor does it know what a TypedDict's call takes: those are a kind of their own.)
FIELDS_INSTEAD_OF_INIT = {"Model", "TrainableModel"}


@pytest.fixture(scope="module")
def project(installation: Installation, workspace: Path) -> jedi.Project:
    # safe=False: the environment is ours, and in no place where jedi would look for one.
    return jedi.Project(workspace, environment_path=str(installation.python))


def script(project: jedi.Project, text: str) -> jedi.Script:
    return jedi.Script(text, path=Path(project.path) / "program.py", project=project)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_is_completed(project: jedi.Project, package: str) -> None:
    for text in (f"from {package} import ", f"import {package}\n{package}."):
        offered = {each.name for each in script(project, text).complete()}
        assert not set(PACKAGES[package]) - offered, text


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_leads_to_its_definition(
    project: jedi.Project, installation: Installation, package: str
) -> None:
    names = PACKAGES[package]
    program = script(project, import_each(package, names))
    wrong = {}
    for line, name in enumerate(names, start=2):
        found = definition(installation.site, package, name)
        goto = program.goto(line, 4, follow_imports=True)
        places = {(place.module_path, place.line) for place in goto}
        if not found.is_at(places):
            wrong[name] = f"{places}, not {found.path}:{found.line}"
    assert not wrong, listing(wrong)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_shows_its_docstring(
    project: jedi.Project, installation: Installation, package: str
) -> None:
    names = PACKAGES[package]
    program = script(project, import_each(package, names))
    wrong = {}
    for line, name in enumerate(names, start=2):
        found = definition(installation.site, package, name)
        (shown,) = program.help(line, 4)
        # Of a plain value jedi shows no docstring, whatever follows it.
        if found.kind != "value" and shown.docstring(raw=True) != found.docstring:
            wrong[name] = f"{shown.docstring(raw=True)!r}, not {found.docstring!r}"
        if found.kind not in {"module", "value"} and not found.docstring:
            wrong[name] = f"{found.path}:{found.line} has no docstring"
    assert not wrong, listing(wrong)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_call_shows_its_signature(
    project: jedi.Project, installation: Installation, package: str
) -> None:
    names = PACKAGES[package]
    program = script(project, import_each(package, names))
    wrong = {}
    for line, name in enumerate(names, start=len(names) + 3):
        found = definition(installation.site, package, name)
        if found.kind not in {"class", "function"}:
            continue
        shown = [
            tuple(param.to_string().split(":")[0].split("=")[0] for param in signature.params)
            for signature in program.get_signatures(line, len(name) + 1)
        ]
        if not shown or (found.parameters and found.parameters not in shown):
            wrong[name] = f"{shown}, not {found.parameters}"
    assert wrong.keys() == FIELDS_INSTEAD_OF_INIT.intersection(names), listing(wrong)


@pytest.mark.parametrize(
    ("line", "offered"),
    [("from .module import Name", set()), ("from .module import Name as Name", {"Name"})],
)
def test_a_name_is_offered_for_its_redundant_alias_alone(
    tmp_path: Path, line: str, offered: set[str]
) -> None:
    """Why a stub's line repeats the name, and proof that the tests above could fail."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__init__.pyi").write_text(f"{line}\n", encoding="utf-8")
    (package / "module.py").write_text("class Name: ...\n", encoding="utf-8")
    project = jedi.Project(tmp_path, added_sys_path=[str(tmp_path)])
    names = {each.name for each in script(project, "from package import ").complete()}
    assert names & {"Name"} == offered
