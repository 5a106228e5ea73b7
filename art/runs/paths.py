"""Where a model's state lies on disk: ``<base path>/<project>/models/<name>/``.

::

    checkpoints/0001/          one folder a step
    trajectories/<split>/0001.jsonl
    history.jsonl              one row of metrics a call of model.log
    state.json                 the user's own
"""

import os
from pathlib import Path

from art.errors import ConfigurationError

# Windows takes none of these in a name, nor a device's name; paths must mean the same everywhere.
_RESERVED_CHARACTERS = frozenset('<>:"/\\|?*')
_RESERVED_NAMES = frozenset(
    ["CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))]
)
_LONGEST_NAME = 200  # bytes; file systems take 255, and a temporary file's suffix comes on top


def path_component(kind: str, name: str) -> str:
    """Check that a name can be one component of a path, on any system.

    Args:
        kind: What is named, such as ``"project"``; for the error.
        name: The name.

    Returns:
        ``name``.

    Raises:
        art.errors.ConfigurationError: The name is empty, too long, or not safe as a component.
    """
    if not name:
        raise ConfigurationError(f"A {kind} name must not be empty.")
    bad = sorted({char for char in name if char in _RESERVED_CHARACTERS or not char.isprintable()})
    if bad:
        raise ConfigurationError(
            f"The {kind} name {name!r} has characters that cannot be in a file name: "
            f"{' '.join(map(repr, bad))}. It becomes a folder; leave them out."
        )
    if name[-1] in ". " or name[0] == " ":
        raise ConfigurationError(
            f"The {kind} name {name!r} cannot be a file name: it must not begin with a space, nor "
            "end with a space or a dot."
        )
    if name.partition(".")[0].upper() in _RESERVED_NAMES:
        raise ConfigurationError(f"The {kind} name {name!r} is the name of a device on Windows.")
    if len(name.encode()) > _LONGEST_NAME:
        raise ConfigurationError(
            f"The {kind} name {name!r:.40} is longer than {_LONGEST_NAME} bytes."
        )
    return name


def model_dir(base_path: str | os.PathLike[str], project: str, name: str) -> Path:
    """The folder of a model's state. It need not exist.

    Args:
        base_path: The root of all state, ``".art"`` by default.
        project: The model's project.
        name: The model's name.

    Returns:
        ``<base_path>/<project>/models/<name>``.

    Raises:
        art.errors.ConfigurationError: A name is not safe as a component of a path.
    """
    return (
        Path(base_path)
        / path_component("project", project)
        / "models"
        / path_component("model", name)
    )


def checkpoint_dir(output_dir: str | os.PathLike[str], step: int) -> Path:
    """The folder of one step's checkpoint in a model's folder. It need not exist."""
    return Path(output_dir) / "checkpoints" / f"{step:04d}"


def checkpoint_steps(output_dir: str | os.PathLike[str]) -> list[int]:
    """The steps that have a checkpoint folder in a model's folder, in order."""
    folder = Path(output_dir) / "checkpoints"
    if not folder.is_dir():
        return []
    # isdigit() alone takes digits that int() does not, such as superscripts.
    return sorted(
        int(entry.name)
        for entry in folder.iterdir()
        if entry.name.isascii() and entry.name.isdigit() and entry.is_dir()
    )
