"""Lazy packages where there is no folder of sources: zip files, zipapps, byte code alone."""

import compileall
import shutil
import sys
import zipapp
import zipfile
from pathlib import Path

import lazy_loader

import art
from tests.processes import run as run_program
from tests.processes import run_python

from .conftest import Run

ART = Path(art.__file__).parent
LAZY_LOADER = Path(lazy_loader.__file__).parent


def test_a_lazy_package_works_from_a_zip_file(shop: Path, run: Run) -> None:
    archive = shop / "shop.zip"
    with zipfile.ZipFile(archive, "w") as bundle:
        for file in (shop / "shop").rglob("*.py*"):
            bundle.write(file, file.relative_to(shop).as_posix())
    out = run("import shop; print(shop.Pear.__module__, shop.tools.HAMMER, shop.__file__)", archive)
    assert out.startswith("shop.fruit 1 ")
    assert "shop.zip" in out


def copy_art(folder: Path) -> None:
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ART, folder / "art", ignore=ignore)
    shutil.copytree(LAZY_LOADER, folder / "lazy_loader", ignore=ignore)


ASK = """\
import art, sys
from art.megatron.model_support import default_target_modules_for_model as modules
print(art.__file__)
print(*modules("Qwen/Qwen3-8B"))
print("Trajectory" in dir(art), art.ArtError.__name__, "re" in sys.modules)
"""


def test_art_works_from_a_zipapp(tmp_path: Path) -> None:
    copy_art(tmp_path / "app")
    (tmp_path / "app" / "__main__.py").write_text(ASK)
    target = tmp_path / "app.pyz"
    zipapp.create_archive(tmp_path / "app", target, compressed=True)
    shutil.rmtree(tmp_path / "app")
    result = run_program(sys.executable, "-I", "-S", target)
    assert result.stderr == ""
    address, modules, names = result.stdout.splitlines()
    assert address == str(target / "art" / "__init__.py")
    assert modules == "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj"
    assert names == "True ArtError False"


def test_art_works_from_byte_code_alone(tmp_path: Path) -> None:
    copy_art(tmp_path)
    assert compileall.compile_dir(tmp_path, quiet=1, legacy=True, force=True)
    for source in tmp_path.rglob("*.py"):
        source.unlink()
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{ASK}"
    result = run_python(program, flags=("-I", "-S"))
    assert result.stderr == ""
    assert result.stdout.splitlines()[0] == str(tmp_path / "art" / "__init__.pyc")


def test_art_works_with_optimised_byte_code() -> None:
    result = run_python(ASK, flags=("-OO",))
    assert result.stderr == ""
    assert result.stdout.splitlines()[-1] == "True ArtError False"


def test_a_bundle_without_the_stubs_says_so(shop: Path, run: Run) -> None:
    (shop / "shop" / "__init__.pyi").unlink()
    last = run("import shop", shop, fails=True).splitlines()[-1]
    assert last.startswith("ImportError: cannot read ")
    assert "left out its .pyi files" in last
