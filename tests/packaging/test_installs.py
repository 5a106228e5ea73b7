"""Lazy packages as they are installed: the wheel's files, and an editable install of the source."""

import sys
import venv
import zipfile
from pathlib import Path

import lazy_loader
import pytest

from tests.processes import ROOT, run_python

ASK = """\
import sys
import art, art.megatron.model_support
print(art.__file__)
print(sorted(name for name in sys.modules if name.partition(".")[0] in ("art", "lazy_loader")))
print(*art.megatron.model_support.default_target_modules_for_model("Qwen/Qwen3-8B"))
"""


@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_names_resolve_in_an_environment_of_their_own(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("editables", reason="hatchling needs it for an editable install")
    build = f"from hatchling.build import build_{kind}; build_{kind}({str(tmp_path)!r})"
    run_python(build, cwd=ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    get_site = "import sysconfig; print(sysconfig.get_path('purelib'))"
    folder = Path(run_python(get_site, python=python).stdout.strip())
    zipfile.ZipFile(wheel).extractall(folder)
    (folder / "lazy_loader").symlink_to(Path(lazy_loader.__file__).parent)
    result = run_python(ASK, python=python, flags=("-I",), cwd=tmp_path)
    assert result.stderr == ""
    address, loaded, modules = result.stdout.splitlines()
    home = folder if kind == "wheel" else ROOT
    assert address == str(home / "art" / "__init__.py")
    assert loaded == "['art', 'art._lazy', 'art.megatron', 'art.megatron.model_support']"
    assert modules.split()[0] == "q_proj"
