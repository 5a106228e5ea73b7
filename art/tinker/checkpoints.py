"""The checkpoint folders of a model on this machine: ``checkpoints/0001/info.yaml``.

The weights themselves lie on the Tinker server; a folder says where. It appears under its name
only once it is complete, so a process that is killed leaves the one before as the last.
"""

import os
import secrets
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from art.errors import CheckpointError
from art.runs.paths import checkpoint_dir, checkpoint_steps

_INFO = "info.yaml"


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """Where a step's weights lie. The first three names are those that ART writes.

    Attributes:
        model_id: The model on the Tinker server that was saved.
        state_with_optimizer_path: What training resumes from.
        sampler_weights_path: What is sampled from.
        base_model: What the adapter belongs to; ``None`` in a folder that ART wrote.
    """

    model_id: str
    state_with_optimizer_path: str
    sampler_weights_path: str
    base_model: str | None = None


class CheckpointFolders:
    """The checkpoint folders of one model.

    Args:
        output_dir: The model's folder.
    """

    def __init__(self, output_dir: str | os.PathLike[str]) -> None:
        self._output_dir = output_dir

    def folder(self, step: int) -> Path:
        """The folder of a step, whether it exists or not."""
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
            art.errors.CheckpointError: It cannot be read, or lacks something.
        """
        path = self.folder(step) / _INFO
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
            return CheckpointInfo(**content)
        except (OSError, TypeError, yaml.YAMLError) as error:
            raise CheckpointError(
                f"{path} cannot be read: {error}. Move the folder of step {step} away to resume "
                "from the step before"
            ) from error

    async def write(
        self, step: int, info: CheckpointInfo, fill: Callable[[Path], Awaitable[None]]
    ) -> Path:
        """Write a step's folder, all of it or nothing.

        Args:
            step: The step; its folder must not exist yet, or is replaced if it is incomplete.
            info: What to write.
            fill: Puts further files into the folder, given its temporary path.

        Returns:
            The folder.

        Raises:
            art.errors.CheckpointError: The disk is full, say.
        """
        folder = self.folder(step)
        temporary = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")
        try:
            temporary.mkdir(parents=True)
            await fill(temporary)
            _write_synced(temporary / _INFO, yaml.safe_dump(_without_none(info), sort_keys=False))
            if folder.exists() and not (folder / _INFO).exists():
                shutil.rmtree(folder)
            temporary.rename(folder)
            _sync_folder(folder.parent)
        except OSError as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(
                f"the checkpoint of step {step} cannot be written to {folder}: {error}"
            ) from error
        finally:
            # Once renamed there is nothing left to remove.
            shutil.rmtree(temporary, ignore_errors=True)
        return folder

    def delete(self, step: int) -> None:
        """Remove a step's folder."""
        folder = self.folder(step)
        # Without its name it is no checkpoint any more, even if removing it is interrupted.
        doomed = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")
        folder.rename(doomed)
        shutil.rmtree(doomed)


def _without_none(info: CheckpointInfo) -> dict[str, str]:
    return {key: value for key, value in asdict(info).items() if value is not None}


def _write_synced(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    # Windows cannot open a folder; there a rename is as durable as it gets.
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
