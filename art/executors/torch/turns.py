"""Turns at one device, in the order in which they were asked for."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

# Takes a turn for the length of a `with` block. What is passed it need not know the lock.
Turn = Callable[[], AbstractContextManager[None]]


class Turns:
    """A fair lock: whoever waits longest is next, so no thread starves another.

    ``threading.Lock`` promises no order: a thread that releases it and takes it again at once, as
    one that samples token after token, can keep another waiting for long.

    Not reentrant.
    """

    def __init__(self) -> None:
        self._state = threading.Lock()
        self._taken = False
        self._waiting: deque[threading.Event] = deque()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn, and hold it for the length of the block."""
        self._take()
        try:
            yield
        finally:
            self._pass_on()

    def _take(self) -> None:
        with self._state:
            if not self._taken:
                self._taken = True
                return
            mine = threading.Event()
            self._waiting.append(mine)
        try:
            mine.wait()
        except BaseException:  # an interrupt; a turn that nobody takes would stop all others
            with self._state:
                given = mine not in self._waiting
                if not given:
                    self._waiting.remove(mine)
            if given:
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        with self._state:
            if self._waiting:
                # It stays taken: nobody can come between.
                self._waiting.popleft().set()
            else:
                self._taken = False
