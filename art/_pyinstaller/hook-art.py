"""Modules and data of a lazy package that PyInstaller cannot see in its source.

A program that says ``art.Trajectory`` imports ``art`` and nothing else, as far as its byte code
tells: the stubs, which list the names, are data, and the modules behind them are loaded by name.
All of art is collected; an engine that is installed comes with it, unless the program is built
with ``--exclude-module torch`` and the like. A name that needs it then raises
``art.errors.MissingExtraError``.
"""

from PyInstaller.utils.hooks import collect_data_files, collect_submodules, copy_metadata


def _is_of_the_run_time(name: str) -> bool:
    return not name.startswith("art._pyinstaller")


datas = collect_data_files("art", includes=["**/*.pyi"]) + copy_metadata("art-rl")
hiddenimports = ["lazy_loader", *collect_submodules("art", filter=_is_of_the_run_time)]
