"""Results that clients come back for.

A request is answered at once with its id, and ``retrieve_future`` waits for what became of it.
Everything here belongs to the event loop's thread.
"""

import asyncio
import contextlib
import logging
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Literal

from art.errors import ArtError, CheckpointError, EngineError, NotFoundError

logger = logging.getLogger(__name__)

JSON = "application/json"

_MAX_ERROR_CHARACTERS = 2000


@dataclass(frozen=True, slots=True)
class Payload:
    """A result as it goes over the wire."""

    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as it goes over the wire; ``category`` says whose it is."""

    error: str
    category: Literal["user", "server"]


Outcome = Payload | Failure


def failure_of(error: BaseException) -> Failure:
    """The failure that tells a client of an error.

    An :class:`art.errors.ArtError` about the request is the user's; anything else is the
    server's, and keeps the name of its type.
    """
    if isinstance(error, ArtError):
        server = isinstance(error, EngineError | CheckpointError)
        return Failure(_shortened(str(error)), "server" if server else "user")
    return Failure(_shortened(f"{type(error).__name__}: {error}"), "server")


def _shortened(text: str) -> str:
    """Bound a text that may repeat what a client sent."""
    if len(text) <= _MAX_ERROR_CHARACTERS:
        return text
    return f"{text[:_MAX_ERROR_CHARACTERS]} … ({len(text)} characters)"


@dataclass(slots=True)
class _Entry:
    group: str | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)
    outcome: Outcome | None = None
    polls: int = 0

    @property
    def size(self) -> int:
        if isinstance(self.outcome, Failure):
            return len(self.outcome.error)
        return 0 if self.outcome is None else len(self.outcome.body)


class FutureStore:
    """The results not yet fetched, and the last ones that were.

    A result stays after it was fetched, since the answer may have been lost on its way. When
    the store is over its bounds the oldest fetched results go first, then the oldest of all;
    a request that is still running never goes.

    Args:
        max_bytes: Most bytes of results to hold.
        max_results: Most results to hold.
    """

    def __init__(self, *, max_bytes: int = 256 << 20, max_results: int = 20_000) -> None:
        self._max_bytes, self._max_results = max_bytes, max_results
        self._entries: dict[str, _Entry] = {}
        self._finished: OrderedDict[str, None] = OrderedDict()
        self._fetched: OrderedDict[str, None] = OrderedDict()
        self._bytes = 0
        # The finished requests of each group, in the order they ended in.
        self._groups: dict[str, OrderedDict[str, int]] = {}
        self._ended = 0
        self._group_ended = asyncio.Event()

    def create(self, request_id: str, *, group: str | None = None) -> bool:
        """Make room for a result.

        Args:
            request_id: The id by which a client asks for it.
            group: The key under which :meth:`wait_for_group` finds it.

        Returns:
            Whether the request is new; a repeated request is answered from the first.
        """
        if request_id in self._entries:
            return False
        self._entries[request_id] = _Entry(group)
        return True

    def resolve(self, request_id: str, outcome: Outcome) -> None:
        """Hand in the outcome of a request; the first one stands."""
        entry = self._entries.get(request_id)
        if entry is None or entry.outcome is not None:
            return
        entry.outcome = outcome
        entry.done.set()
        self._finished[request_id] = None
        self._bytes += entry.size
        if entry.group is not None:
            self._ended += 1
            self._groups.setdefault(entry.group, OrderedDict())[request_id] = self._ended
            self._group_ended.set()
            self._group_ended = asyncio.Event()
        self._evict()

    async def wait(self, request_id: str, timeout: float) -> Outcome | None:
        """Wait for the outcome of a request.

        Args:
            request_id: As :meth:`create` was given it.
            timeout: Seconds to wait at most.

        Returns:
            The outcome, or ``None`` when the time is over.

        Raises:
            NotFoundError: There is no such request, or its result was dropped.
        """
        entry = self._entries.get(request_id)
        if entry is None:
            raise NotFoundError(
                f"there is no request {request_id!r}: it was never sent to this server since it "
                "started, or its result was dropped after it was fetched"
            )
        if entry.outcome is None:
            entry.polls += 1
            try:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(entry.done.wait(), timeout)
            finally:
                entry.polls -= 1
        return entry.outcome

    def is_awaited(self, request_id: str) -> bool:
        """True while somebody waits for a request's outcome."""
        entry = self._entries.get(request_id)
        return entry is not None and entry.polls > 0

    async def wait_for_group(
        self, group: str, cursor: int, timeout: float
    ) -> tuple[list[tuple[str, Outcome]], int]:
        """Wait until some request of a group has ended.

        Args:
            group: As :meth:`create` was given it.
            cursor: Where the last call stopped; 0 is the beginning.
            timeout: Seconds to wait at most.

        Returns:
            The requests that ended since, with their outcomes, and where to go on.
        """
        deadline = asyncio.get_running_loop().time() + timeout
        while True:
            ended = self._ended_since(group, cursor)
            left = deadline - asyncio.get_running_loop().time()
            if ended or left <= 0:
                return ended, self._ended if ended else cursor
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._group_ended.wait(), left)

    def _ended_since(self, group: str, cursor: int) -> list[tuple[str, Outcome]]:
        ended: list[tuple[str, Outcome]] = []
        for request_id, position in reversed(self._groups.get(group, OrderedDict()).items()):
            outcome = self._entries[request_id].outcome
            if position <= cursor or outcome is None:
                break
            ended.append((request_id, outcome))
        return ended[::-1]

    def mark_fetched(self, request_id: str) -> None:
        """Note that a client has had a result, so that it may go when room is needed."""
        if request_id in self._finished:
            del self._finished[request_id]
            self._fetched[request_id] = None

    def _evict(self) -> None:
        while self._bytes > self._max_bytes or (
            len(self._finished) + len(self._fetched) > self._max_results
        ):
            queue = self._fetched or self._finished
            if len(queue) == 1 and not self._fetched:
                return  # the newest result is kept, whatever its size
            request_id, _ = queue.popitem(last=False)
            if queue is self._finished:
                logger.warning("dropped the result of %s, which nobody fetched", request_id)
            entry = self._entries.pop(request_id)
            self._bytes -= entry.size
            if entry.group is not None:
                group = self._groups[entry.group]
                del group[request_id]
                if not group:
                    del self._groups[entry.group]
