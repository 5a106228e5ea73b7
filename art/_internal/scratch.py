"""A folder that lives no longer than its process, however that ends."""

import shutil
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout

_PREFIX = "scratch-"
_LOCK = "in-use"


class ScratchFolder:
    """A temporary folder; folders that earlier processes left behind are removed first.

    A process that is killed removes nothing, but the system drops its lock. Whoever makes one in a
    folder that others use too holds a lock of that folder meanwhile.

    Args:
        parent: The folder that it is made in.

    Raises:
        OSError: It cannot be made.
    """

    def __init__(self, parent: Path) -> None:
        for leftover in parent.glob(f"{_PREFIX}*"):
            _remove_if_abandoned(leftover)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        self._lock = FileLock(self.path / _LOCK, timeout=0)
        self._lock.acquire()

    def new(self) -> Path:
        """Make an empty folder inside."""
        return Path(tempfile.mkdtemp(dir=self.path))

    def close(self) -> None:
        """Remove the folder and all that is in it."""
        self._lock.release()
        shutil.rmtree(self.path, ignore_errors=True)


def _remove_if_abandoned(folder: Path) -> None:
    if folder.is_symlink() or not folder.is_dir():
        return
    try:
        with FileLock(folder / _LOCK, timeout=0):
            pass
    except Timeout:
        return
    shutil.rmtree(folder, ignore_errors=True)
