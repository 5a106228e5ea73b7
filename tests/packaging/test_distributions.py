"""What a user downloads: the wheel and the sdist hold the stubs, and the wheel works by itself."""

import sys
import tarfile
import venv
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.processes import ROOT, run, run_python

STUBS = {path.relative_to(ROOT).as_posix() for path in (ROOT / "art").rglob("*.pyi")}


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    build = (sys.executable, "-m", "build", "--no-isolation", "--outdir")
    run(*build, folder, ROOT, timeout=300)
    return folder


def test_the_wheel_holds_stubs_and_the_type_marker(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert STUBS
    assert names >= STUBS
    assert "art/py.typed" in names
    assert {name.partition("/")[0] for name in names} == {"art", _info_folder(wheel)}


def test_the_sdist_holds_stubs_and_the_type_marker(distributions: Path) -> None:
    (sdist,) = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= STUBS
    assert {"art/py.typed", "LICENSE", "README.md"} <= names
    # What `make check` and `make test` need.
    assert {"Makefile", "constraints.txt", "noxfile.py", ".pre-commit-config.yaml"} <= names
    assert {".importlinter", "tools/layers.py", "tests/processes.py"} <= names
    assert any(name.startswith("stubs/megatron/") for name in names)


def _info_folder(wheel: Path) -> str:
    return "-".join(wheel.name.split("-")[:2]) + ".dist-info"


@pytest.fixture(scope="module")
def metadata(distributions: Path) -> Message:
    """The metadata of the wheel."""
    (wheel,) = distributions.glob("*.whl")
    return message_from_bytes(zipfile.ZipFile(wheel).read(f"{_info_folder(wheel)}/METADATA"))


def test_only_what_users_need_is_published_as_an_extra(metadata: Message) -> None:
    assert metadata["Name"] == "art-rl"
    assert metadata["Requires-Python"] == ">=3.11"
    extras = {"tinker", "local", "langgraph", "mcp", "megatron"}
    assert set(metadata.get_all("Provides-Extra", [])) == extras


def test_only_the_megatron_extra_is_bound_to_linux(metadata: Message) -> None:
    for requirement in map(Requirement, metadata.get_all("Requires-Dist", [])):
        marker = str(requirement.marker or "")
        linux_only = 'sys_platform == "linux"' in marker
        assert linux_only == ('extra == "megatron"' in marker), requirement


def test_a_base_install_brings_no_engine_and_no_sdk(metadata: Message) -> None:
    requirements = [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]
    base = {each.name for each in requirements if each.marker is None}
    assert base >= {"lazy-loader", "openai", "pydantic"}
    assert not base & {"torch", "tinker", "transformers", "numpy", "fastapi", "megatron-core"}


def test_a_bare_environment_imports_the_wheel_lazily(distributions: Path, tmp_path: Path) -> None:
    """The wheel without its dependencies but lazy_loader: a registry question needs no more."""
    (wheel,) = distributions.glob("*.whl")
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    import lazy_loader

    lazy_loader_home = Path(lazy_loader.__file__).parents[1]
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "lazy_loader").symlink_to(lazy_loader_home / "lazy_loader")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "from art.megatron.model_support import default_target_modules_for_model as modules\n"
        "print(modules('Qwen/Qwen3-30B-A3B-Instruct-2507')[-1])\n"
        "import art\n"
        "try: art.TrainableModel\n"
        "except ImportError as error: print(error.name)\n"
    )
    result = run_python(code, python=python, flags=("-I",))
    assert result.stderr == ""
    target_module, missing = result.stdout.split()
    assert target_module == "experts"
    assert missing in ("openai", "pydantic")
