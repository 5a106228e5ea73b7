"""The most memory that a piece of work takes at any moment, in a process of its own. Linux alone.

Counted is anonymous memory, ``RssAnon`` of ``/proc/self/status``: what the process allocated and
has written to. The pages of a file that is mapped are not counted. They are the system's copy of
what is on the disk, which every process shares, and which it drops when it needs the room.
"""

import gc
import threading
from pathlib import Path
from types import TracebackType

_SECONDS_BETWEEN_LOOKS = 0.001


def anonymous_bytes() -> int:
    """Say how much anonymous memory this process has now, in bytes."""
    status = Path("/proc/self/status").read_text()
    _, _, line = status.partition("RssAnon:")
    kilobytes, _, _ = line.partition("kB")
    return int(kilobytes) * 1024


class PeakMemory:
    """A context in which a thread looks once a millisecond, and once more at the end.

    Attributes:
        added: The most that there was at any look beyond what there was at the start, in bytes.
    """

    def __init__(self) -> None:
        self.added = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "PeakMemory":
        gc.collect()
        self._before = anonymous_bytes()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._done.wait(_SECONDS_BETWEEN_LOOKS):
            self._look()

    def _look(self) -> None:
        self.added = max(self.added, anonymous_bytes() - self._before)
