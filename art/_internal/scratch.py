"""A folder that lives no longer than its process, however that ends."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import IO

_PREFIX = "scratch-"
_LOCK = "in-use"


class ScratchFolder:
    """A temporary folder; what earlier processes left behind is removed first.

    A process that is killed removes nothing, but the system drops its lock.

    Args:
        parent: Where to make it.

    Raises:
        OSError: It cannot be made.
    """

    def __init__(self, parent: Path) -> None:
        for leftover in parent.glob(f"{_PREFIX}*"):
            if _is_abandoned(leftover):
                shutil.rmtree(leftover, ignore_errors=True)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        self._lock: IO[bytes] = (self.path / _LOCK).open("wb")
        _lock_file(self._lock.fileno())

    def new(self) -> Path:
        """Make an empty folder inside."""
        return Path(tempfile.mkdtemp(dir=self.path))

    def close(self) -> None:
        """Remove the folder and all that is in it."""
        self._lock.close()
        shutil.rmtree(self.path, ignore_errors=True)


def _lock_file(descriptor: int) -> None:
    if os.name == "nt":  # on Windows an open file cannot be deleted, which is lock enough
        return
    import fcntl

    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_abandoned(folder: Path) -> bool:
    lock = folder / _LOCK
    try:
        if os.name == "nt":
            lock.unlink()
        else:
            with lock.open("rb") as file:
                _lock_file(file.fileno())
    except OSError:
        return False
    return True
