"""Throwaway environments with the packages that ``import_cost.py --compare`` compares with."""

import subprocess
import sys
import venv
from pathlib import Path

# What is installed together, and the import of each package that is measured there. openpipe-art
# has an environment of its own: it pins what the others need newer.
ENVIRONMENTS: dict[str, dict[str, str | None]] = {
    "others": {
        "lazy-imports": None,
        "etils": None,
        "importlib_resources": None,  # what etils.epy imports and does not declare
        "openai": "import openai",
        "pydantic": "import pydantic; pydantic.BaseModel",
        "huggingface_hub": "import huggingface_hub",
        "transformers": "import transformers",
        "scikit-image": "import skimage",
    },
    "openpipe-art": {"openpipe-art==0.5.18": "import art"},
}


def make_environments(folder: Path) -> dict[str, tuple[Path, list[str]]]:
    """Make the environments below a folder, or use those that are there.

    Args:
        folder: Where they are made, some hundred MB.

    Returns:
        The interpreter of each environment, and what could not be installed there.
    """
    made = {}
    for name, packages in ENVIRONMENTS.items():
        home = folder / name
        python = home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
        if not python.exists():
            venv.create(home, with_pip=True)
        missing = [package for package in packages if not _install(python, package)]
        made[name] = (python, missing)
    return made


def _install(python: Path, package: str) -> bool:
    result = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", package],
        capture_output=True,
        text=True,
    )
    if result.returncode:
        print(f"{package}: {result.stderr.strip().splitlines()[-1]}", file=sys.stderr)
    return result.returncode == 0
