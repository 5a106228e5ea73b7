"""The checkpoint folders of a model on this machine: ``checkpoints/0001/info.yaml``.

The weights themselves are on the Tinker server; a folder holds their paths there. It appears under
its name only once it is complete, so a process that is killed leaves the one before as the last.
"""

import logging
import os
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from art._internal.files import TEMPORARY, new_folder, remove_folder
from art.errors import CheckpointError
from art.runs.file_errors import file_errors
from art.runs.paths import checkpoint_dir, checkpoint_steps

logger = logging.getLogger(__name__)

_INFO = "info.yaml"


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """The paths of a step's weights. The first three names are those that ART writes.

    Attributes:
        model_id: The model on the Tinker server that was saved.
        state_with_optimizer_path: The checkpoint that training resumes from.
        sampler_weights_path: The checkpoint to sample from.
        base_model: The base model of the adapter; ``None`` in a folder that ART wrote.
    """

    model_id: str
    state_with_optimizer_path: str
    sampler_weights_path: str
    base_model: str | None = None

    @property
    def paths(self) -> tuple[str, str]:
        """The paths of both kinds of weights."""
        return self.state_with_optimizer_path, self.sampler_weights_path


class CheckpointFolders:
    """The checkpoint folders of one model.

    Args:
        output_dir: The model's folder.
    """

    def __init__(self, output_dir: str | os.PathLike[str]) -> None:
        self._output_dir = output_dir

    def folder(self, step: int) -> Path:
        """The folder of a step. It need not exist."""
        return checkpoint_dir(self._output_dir, step)

    def steps(self) -> list[int]:
        """The steps that have a complete folder, in order."""
        return [
            step
            for step in checkpoint_steps(self._output_dir)
            if (self.folder(step) / _INFO).is_file()
        ]

    def last_step(self) -> int | None:
        """The last complete step; ``None`` before the first."""
        return max(self.steps(), default=None)

    def read(self, step: int) -> CheckpointInfo:
        """Read a step's folder.

        Raises:
            art.errors.CheckpointError: It cannot be read, or is incomplete.
        """
        path = self.folder(step) / _INFO
        try:
            info = CheckpointInfo(**yaml.safe_load(path.read_text(encoding="utf-8")))
            if not all(isinstance(value, str) for value in _without_none(info).values()):
                raise TypeError("its values must be text")
            return info
        except (OSError, TypeError, ValueError, RecursionError, yaml.YAMLError) as error:
            raise CheckpointError(
                f"{path} cannot be read: {error}. Move the folder of step {step} away to resume "
                "from the step before"
            ) from error

    async def write(
        self, step: int, info: CheckpointInfo, fill: Callable[[Path], Awaitable[None]]
    ) -> Path:
        """Write a step's folder whole or not at all.

        Args:
            step: The step. A folder of it without ``info.yaml`` is a leftover, and is replaced.
            info: The paths.
            fill: Puts further files into the folder, given its temporary path.

        Returns:
            The folder.

        Raises:
            art.errors.CheckpointError: It cannot be written (the disk is full, say), or the step
                has a complete folder.
        """
        folder = self.folder(step)
        try:
            with new_folder(folder) as temporary:
                await fill(temporary)
                (temporary / _INFO).write_text(
                    yaml.safe_dump(_without_none(info), sort_keys=False), encoding="utf-8"
                )
                if folder.exists() and not (folder / _INFO).exists():
                    shutil.rmtree(folder)
        except CheckpointError:
            raise
        except OSError as error:
            raise CheckpointError(
                f"the checkpoint of step {step} cannot be written to {folder}: {error}. Free space "
                "or check the folder's permissions; training goes on from the step before"
            ) from error
        return folder

    def sweep(self) -> None:
        """Remove what processes that were killed while they wrote or deleted a step left behind.

        The caller holds the model's lock, so nobody writes any more.
        """
        for leftover in self.folder(0).parent.glob(f"{TEMPORARY}*"):
            logger.info("removing %s, which a killed process left", leftover)
            shutil.rmtree(leftover, ignore_errors=True)

    def delete(self, step: int) -> None:
        """Remove a step's folder.

        Raises:
            art.errors.CheckpointError: There is none, or it cannot be removed.
        """
        with file_errors(self.folder(step), "removed"):
            remove_folder(self.folder(step))


def _without_none(info: CheckpointInfo) -> dict[str, str]:
    return {key: value for key, value in asdict(info).items() if value is not None}
