"""What a user downloads: the wheel and the sdist hold the stubs, and the wheel works by itself."""

import subprocess
import sys
import tarfile
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STUBS = {path.relative_to(ROOT).as_posix() for path in (ROOT / "art").rglob("*.pyi")}


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        check=True,
        capture_output=True,
        timeout=300,
    )
    return folder


def test_the_wheel_holds_stubs_and_the_type_marker(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert STUBS
    assert names >= STUBS
    assert "art/py.typed" in names
    assert not [name for name in names if name.startswith(("tests/", "stubs/", "examples/"))]


def test_the_sdist_holds_stubs_and_the_type_marker(distributions: Path) -> None:
    (sdist,) = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= STUBS
    assert {"art/py.typed", "LICENSE", "README.md", "Makefile", "constraints.txt"} <= names
    assert any(name.startswith("stubs/megatron/") for name in names)


def test_only_the_megatron_extra_is_bound_to_linux(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    archive = zipfile.ZipFile(wheel)
    (metadata,) = [name for name in archive.namelist() if name.endswith("dist-info/METADATA")]
    message = message_from_bytes(archive.read(metadata))
    assert message["Name"] == "art-rl"
    assert message["Requires-Python"] == ">=3.11"
    assert set(message.get_all("Provides-Extra")) >= {"tinker", "local", "megatron", "dev"}
    for requirement in message.get_all("Requires-Dist"):
        name, _, marker = requirement.partition(";")
        linux_only = "sys_platform == 'linux'" in marker
        assert linux_only == ("extra == 'megatron'" in marker), requirement
        assert "extra" in marker or not name.startswith(("torch", "tinker", "transformers"))


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
    result = subprocess.run(
        [str(python), "-I", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert result.stderr == ""
    target_module, missing = result.stdout.split()
    assert target_module == "experts"
    assert missing in ("openai", "pydantic")
