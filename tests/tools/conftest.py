"""The wheel as a user installs it, beside the client's dependencies and no engine.

The tools under test run in the environment of these tests and are pointed at that one, as an
editor is. Nothing they are asked can be answered from the source tree.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.processes import ROOT, run

CLIENT_ENVIRONMENT = ROOT / ".venv-tinker"


class Installation(NamedTuple):
    """An environment that has art's wheel and what ``[tinker]`` brings."""

    folder: Path
    python: Path
    site: Path


@pytest.fixture(scope="session", autouse=True)
def no_source_tree_on_the_path() -> Iterator[None]:
    """Start every tool without a ``PYTHONPATH``, which may lead it to the source tree."""
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("PYTHONPATH", raising=False)
        yield


@pytest.fixture(scope="session")
def installation(
    tmp_path_factory: pytest.TempPathFactory, no_source_tree_on_the_path: None
) -> Installation:
    scripts, executable = (
        ("Scripts", "python.exe") if sys.platform == "win32" else ("bin", "python")
    )
    client_python = CLIENT_ENVIRONMENT / scripts / executable
    if not client_python.exists():
        pytest.fail(f"{CLIENT_ENVIRONMENT} is not there: run `make .venv-tinker/.ready`")
    folder = tmp_path_factory.mktemp("user")
    environment = folder / "environment"
    python = environment / scripts / executable
    _run(client_python, "-m", "venv", "--without-pip", environment)
    _run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    (wheel,) = folder.glob("*.whl")
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    _run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel)
    site = _site_packages(python)
    # The editable art of the client's environment hangs on a .pth file, which is not read twice.
    (site / "dependencies.pth").write_text(f"{_site_packages(client_python)}\n", encoding="utf-8")
    loaded = _run(python, "-I", "-c", "import art, openai, tinker; print(art.__file__)")
    assert Path(loaded) == site / "art" / "__init__.py"
    absent = "from importlib.util import find_spec as find; print(find('torch'), find('megatron'))"
    assert _run(python, "-I", "-c", absent) == "None None"
    return Installation(environment, python, site)


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a user's own project."""
    return tmp_path_factory.mktemp("project")


def _site_packages(python: Path) -> Path:
    return Path(_run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"))


def _run(*command: str | Path) -> str:
    return run(*command).stdout.strip()
