"""The lock of a model's folder: one trainer at a time.

Two trainers of one model would each build on the other's steps without knowing of them. The system
drops the lock when its process ends, however it ends. Whoever only reads the files needs none.
"""

import json
import os
import socket
import sys
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from art._internal.files import write_text
from art.errors import CheckpointError, ModelInUseError

LOCK = "training.lock"
# Beside the lock, since some versions of filelock empty the lock's own file before they wait.
_HOLDER = "training.lock.json"


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that trains a model.

    Attributes:
        pid: Its process id.
        host: The machine that it runs on.
        since: When it took the lock, local time in ISO 8601.
        command: Its command line, shortened.
    """

    pid: int
    host: str
    since: str
    command: str


class ModelLock:
    """The lock of one model's folder.

    Args:
        output_dir: The model's folder. It is made where it is absent.
    """

    def __init__(self, output_dir: str | os.PathLike[str]) -> None:
        self._output_dir = Path(output_dir)
        # Each instance counts, so that two backends of one process exclude each other too; and
        # whichever thread closes a backend may release it.
        self._lock = FileLock(self._output_dir / LOCK, timeout=0, thread_local=False)

    @property
    def held(self) -> bool:
        """True between :meth:`acquire` and :meth:`release`."""
        return self._lock.is_locked

    def acquire(self) -> None:
        """Take the lock, without waiting. Does nothing where this instance holds it.

        Raises:
            art.errors.ModelInUseError: Another backend, in this process or another, holds it.
            art.errors.CheckpointError: The folder cannot be written to.
        """
        if self.held:
            return
        try:
            self._output_dir.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except Timeout as error:
            raise ModelInUseError(_in_use(self._output_dir)) from error
        except (OSError, NotImplementedError) as error:
            raise _not_writable(self._output_dir, error) from error
        try:
            write_text(self._output_dir / _HOLDER, json.dumps(asdict(_this_process()), indent=2))
        except OSError as error:
            self._lock.release()
            raise _not_writable(self._output_dir, error) from error

    def release(self) -> None:
        """Let others train the model. Does nothing where this instance does not hold the lock."""
        if self.held:
            (self._output_dir / _HOLDER).unlink(missing_ok=True)
            self._lock.release()


def read_holder(output_dir: Path) -> Holder | None:
    """Read which process has taken a model's lock; ``None`` where no process has said so.

    A process that was killed stays named until the next one takes the lock.
    """
    try:
        fields = json.loads((output_dir / _HOLDER).read_text(encoding="utf-8"))
        return Holder(**fields)
    except (OSError, ValueError, TypeError):
        return None


def _this_process() -> Holder:
    command = " ".join([Path(sys.executable).name, *sys.argv])
    return Holder(
        os.getpid(),
        socket.gethostname(),
        datetime.now().isoformat(timespec="seconds"),
        f"{command:.200}",
    )


def _in_use(output_dir: Path) -> str:
    holder = read_holder(output_dir)
    if holder is None:
        return (
            f"{output_dir} is being trained by another process; end it, or give this model "
            "another name"
        )
    if (holder.pid, holder.host) == (os.getpid(), socket.gethostname()):
        return (
            f"{output_dir} is being trained by another backend of this process, since "
            f"{holder.since}; close that one first (await backend.close()), or give this model "
            "another name"
        )
    return (
        f"{output_dir} is being trained by process {holder.pid} on {holder.host}, since "
        f"{holder.since} ({holder.command}); wait for it, end it, or give this model another name"
    )


def _not_writable(output_dir: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{output_dir} cannot be locked for training: {error}. Check that it is a folder that "
        "this process may write to, on a disk with free space"
    )
