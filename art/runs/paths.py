"""Paths of a model's state on disk, under ``<base path>/<project>/models/<name>/``.

::

    model.json                 the model's own fields, without keys
    checkpoints/0001/          one folder a step
    checkpoints/unfinished.json  what is being saved on the server, while it is
    trajectories/<split>/0001.jsonl
    history.jsonl              one row of metrics for each call of model.log
    state.json                 the user's own values
    training.lock              held by the process that trains the model
"""

import os
from pathlib import Path

from art.errors import CheckpointError, ConfigurationError

# `typing` costs more than the rest of this module.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class NamedModel(Protocol):
        """A model, of which its folder's names are read."""

        @property
        def name(self) -> str:
            """Name of the model."""
            ...

        @property
        def project(self) -> str:
            """Name of the project."""
            ...


_LONGEST_NAME = 200  # bytes; file systems take 255, and a temporary file's name is longer

# By the name of pathvalidate's reason.
_PROBLEMS = {
    "NULL_NAME": "it is empty",
    "INVALID_LENGTH": f"it is longer than {_LONGEST_NAME} bytes",
    "RESERVED_NAME": "on Windows it is the name of a device",
}
_BAD_CHARACTERS = (
    'leave out control characters and < > : " / \\ | ? *, and do not begin with a space or end '
    "with a space or a dot"
)


def path_component(kind: str, name: str) -> str:
    """Check that a name can be one component of a path, on every operating system.

    Args:
        kind: The kind of thing that is named, such as ``"project"``; for the error.
        name: The name.

    Returns:
        ``name``.

    Raises:
        art.errors.ConfigurationError: The name is empty, too long, or not safe as a component.
    """
    # Loaded here, so that `from art.tinker import TinkerBackend` stays light.
    from pathvalidate import ValidationError, validate_filename

    problem: str | None = None
    cause: ValidationError | None = None
    # pathvalidate takes the first two, and knows no control characters beyond ASCII.
    if name in (".", "..") or not name.isprintable():
        problem = _BAD_CHARACTERS
    else:
        try:
            validate_filename(
                name, platform="universal", max_len=_LONGEST_NAME, fs_encoding="utf-8"
            )
        except ValidationError as error:
            cause = error
            problem = _PROBLEMS.get(error.reason.name, _BAD_CHARACTERS)
    if problem is not None:
        raise ConfigurationError(
            f"The {kind} name {name!r:.60} cannot be the name of a folder: {problem}"
        ) from cause
    return name


def model_dir(base_path: str | os.PathLike[str], project: str, name: str) -> Path:
    """Build the path of a model's folder. It need not exist.

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
    """Build the path of one step's checkpoint in a model's folder. It need not exist."""
    return Path(output_dir) / "checkpoints" / f"{step:04d}"


def checkpoint_steps(output_dir: str | os.PathLike[str]) -> list[int]:
    """List the steps that have a checkpoint folder in a model's folder, in order.

    Raises:
        art.errors.CheckpointError: The folder ``checkpoints`` cannot be read.
    """
    folder = Path(output_dir) / "checkpoints"
    try:
        # isdigit() alone takes digits that int() does not, such as superscripts.
        return sorted(
            int(entry.name)
            for entry in folder.iterdir()
            if entry.name.isascii() and entry.name.isdigit() and entry.is_dir()
        )
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CheckpointError(
            f"the checkpoints in {folder} cannot be listed: {error}. Check that it is a folder "
            "that this process may read"
        ) from error


def get_model_step(model: "NamedModel", art_path: str | os.PathLike[str]) -> int:
    """Read a model's last step from its folder, without a backend.

    Args:
        model: The model.
        art_path: The root of all state, ``".art"`` by default.

    Returns:
        The last step that has a checkpoint; 0 without any.

    Raises:
        art.errors.CheckpointError: The folder cannot be read.
    """
    return max(checkpoint_steps(model_dir(art_path, model.project, model.name)), default=0)
