"""basedpyright over the Language Server Protocol, as VS Code, Neovim and Zed drive it."""

import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlparse
from urllib.request import url2pathname

import pytest

from .conftest import Installation
from .language_server import LanguageServer
from .public_names import (
    WITH_ENGINE_TYPES,
    definition,
    import_each,
    lazy_packages,
    listing,
)

PACKAGES = lazy_packages()
COMMAND = (sys.executable, "-c", "from basedpyright.langserver import main; main()", "--stdio")


@pytest.fixture(scope="module")
def server(installation: Installation, workspace: Path) -> Iterator[LanguageServer]:
    settings = {
        "python": {"pythonPath": str(installation.python)},
        "basedpyright.analysis": {"autoImportCompletions": False},
    }
    with LanguageServer(COMMAND, workspace, settings) as server:
        yield server


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_is_completed(server: LanguageServer, package: str) -> None:
    statement = f"from {package} import "
    uri = server.open("program.py", f"{statement}\nimport {package}\n{package}.\n")
    names = set(PACKAGES[package])
    assert not names - set(server.complete(uri, 0, len(statement)))
    assert not names - set(server.complete(uri, 2, len(package) + 1))


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_leads_to_its_definition(
    server: LanguageServer, installation: Installation, package: str
) -> None:
    names = PACKAGES[package]
    uri = server.open("program.py", import_each(package, names))
    wrong = {}
    for line, name in enumerate(names, start=1):
        found = definition(installation.site, package, name)
        places = {(path_of(place), start + 1) for place, start in server.define(uri, line, 4)}
        if not found.is_at(places):
            wrong[name] = f"{places}, not {found.path}:{found.line}"
    assert not wrong, listing(wrong)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_shows_its_type_and_docstring(
    server: LanguageServer, installation: Installation, package: str
) -> None:
    names = PACKAGES[package]
    uri = server.open("program.py", import_each(package, names))
    wrong = {}
    for line, name in enumerate(names, start=1):
        found = definition(installation.site, package, name)
        shown = server.hover(uri, line, 4)
        unknown = "Unknown" in shown.replace(found.docstring, "")
        if name not in shown or (unknown and package not in WITH_ENGINE_TYPES):
            wrong[name] = f"{shown!r} does not say what it is"
        elif found.docstring not in shown:
            wrong[name] = f"{shown!r} does not end in {found.docstring!r}"
    assert not wrong, listing(wrong)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_call_shows_its_signature(
    server: LanguageServer, installation: Installation, package: str
) -> None:
    names = PACKAGES[package]
    uri = server.open("program.py", import_each(package, names))
    wrong = {}
    for line, name in enumerate(names, start=len(names) + 2):
        found = definition(installation.site, package, name)
        if found.kind in {"module", "value"}:
            continue
        shown = [
            tuple(parameter for parameter in parameters if parameter not in {"*", "/"})
            for parameters in server.signatures(uri, line, len(name) + 1)
        ]
        if not shown or (found.parameters and found.parameters not in shown):
            wrong[name] = f"{shown}, not {found.parameters}"
    assert not wrong, listing(wrong)


def path_of(uri: str) -> Path:
    return Path(url2pathname(unquote(urlparse(uri).path)))
