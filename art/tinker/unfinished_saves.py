"""The checkpoints that were being saved: what a killed process may have left on the server.

A checkpoint is first saved on the server and then named in a folder on this machine. A process that
dies in between leaves weights that no folder names. So the name is noted before it is saved, in
``checkpoints/unfinished.json``, and struck out once the folder is there.
"""

import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from art._internal.files import write_text
from art.runs.file_errors import file_errors
from art.runs.paths import checkpoint_dir

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class UnfinishedSave:
    """A checkpoint that was to be saved.

    Attributes:
        model_id: The model on the Tinker server.
        name: The checkpoint's name there, for the weights of training and of sampling.
    """

    model_id: str
    name: str


class UnfinishedSaves:
    """The note of one model. The caller holds the model's lock.

    Args:
        output_dir: The model's folder.
    """

    def __init__(self, output_dir: str | os.PathLike[str]) -> None:
        self._path: Path = checkpoint_dir(output_dir, 0).parent / "unfinished.json"

    def read(self) -> list[UnfinishedSave]:
        """Read the note; one that is damaged is reported and counts as empty."""
        try:
            return [UnfinishedSave(**each) for each in json.loads(self._path.read_text("utf-8"))]
        except FileNotFoundError:
            return []
        except (OSError, TypeError, ValueError, RecursionError) as error:
            logger.warning(
                "%s cannot be read, so checkpoints that a killed process left on the Tinker "
                "server stay there: %s",
                self._path,
                error,
            )
            return []

    def add(self, save: UnfinishedSave) -> None:
        """Note a checkpoint before it is saved.

        Raises:
            art.errors.CheckpointError: The note cannot be written.
        """
        self._write([*self.read(), save])

    def remove(self, save: UnfinishedSave) -> None:
        """Strike a checkpoint out.

        Raises:
            art.errors.CheckpointError: The note cannot be written.
        """
        self._write([each for each in self.read() if each != save])

    def _write(self, saves: list[UnfinishedSave]) -> None:
        with file_errors(self._path, "written"):
            if saves:
                write_text(self._path, json.dumps([asdict(each) for each in saves]))
            else:
                self._path.unlink(missing_ok=True)
