"""The captures that are open in this process, by token: where an endpoint records what it samples.

An agent's request names its capture by a header, or by the URL that it was sent to. Tokens are
random, 192 bits, so that no agent can name another one's.
"""

import logging
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from art._internal.proxies import is_loopback_url
from art.capture.conversations import record_completion, record_turn
from art.trajectories import Trajectory
from art.types import Choice, Message, Tools

logger = logging.getLogger(__name__)

HEADER = "x-art-rollout"
"""The header that names the capture of a request."""

_MAX_LENT = 10_000


class Capture:
    """A trajectory that is being recorded. Any thread may call any method."""

    def __init__(self, trajectory: Trajectory) -> None:
        self.trajectory = trajectory
        self._closed = False
        self._lock = threading.Lock()

    def record(
        self, messages: Sequence[Message], tools: Tools | None, choices: Sequence[Choice]
    ) -> None:
        """Add a request and its choices; see :func:`art.capture.conversations.record_turn`.

        Once the capture is closed, nothing is added: the trajectory has been handed over.
        """
        with self._lock:
            if not self._closed:
                record_turn(self.trajectory, messages, tools, choices)

    def record_completion(
        self,
        prompt_token_ids: Sequence[int],
        choices: Sequence[Choice],
        text_of: Callable[[Sequence[int]], str],
    ) -> None:
        """Add a prompt of tokens and its completions, as :meth:`record` does a request for turns.

        See :func:`art.capture.conversations.record_completion`.
        """
        with self._lock:
            if not self._closed:
                record_completion(self.trajectory, prompt_token_ids, choices, text_of)

    def close(self) -> None:
        """Stop recording."""
        with self._lock:
            self._closed = True


class Captures:
    """All open captures.

    Args:
        max_lent: The number of captures that agents elsewhere may have open; one more closes the
            one that was not used for the longest time.
    """

    def __init__(self, max_lent: int = _MAX_LENT) -> None:
        self._max_lent = max_lent
        self._lock = threading.Lock()
        self._here: dict[str, Capture] = {}
        self._lent: OrderedDict[str, Capture] = OrderedDict()

    def open(self, trajectory: Trajectory) -> str:
        """Open a capture of a context in this process, which will close it.

        Returns:
            Its token.
        """
        token = secrets.token_urlsafe(24)
        with self._lock:
            self._here[token] = Capture(trajectory)
        return token

    def lend(self) -> str:
        """Open a capture for an agent elsewhere, which may never come back.

        Returns:
            Its token.
        """
        token = secrets.token_urlsafe(24)
        with self._lock:
            self._lent[token] = Capture(Trajectory())
            if len(self._lent) > self._max_lent:
                self._lent.popitem(last=False)
                logger.warning(
                    "more than %d rollouts are captured at once: the one that was not used for the "
                    "longest time is lost. Fetch or delete those that have ended",
                    self._max_lent,
                )
        return token

    def find(self, token: str) -> Capture | None:
        """Find an open capture."""
        with self._lock:
            if token in self._lent:
                self._lent.move_to_end(token)
            return self._here.get(token) or self._lent.get(token)

    def close(self, token: str) -> Trajectory | None:
        """Close a capture; requests that name it are refused from now on.

        Returns:
            Its trajectory; ``None`` where none of that token is open.
        """
        with self._lock:
            capture = self._here.pop(token, None) or self._lent.pop(token, None)
        if capture is None:
            return None
        capture.close()
        return capture.trajectory


class Endpoints:
    """The endpoints of this process: servers that know the tokens of :data:`CAPTURES`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._urls: set[str] = set()

    def add(self, url: str) -> None:
        """Note that an endpoint answers at a URL."""
        with self._lock:
            self._urls.add(url)

    def remove(self, url: str) -> None:
        """Note that it has stopped."""
        with self._lock:
            self._urls.discard(url)

    def has(self, url: str) -> bool:
        """Say whether a request's URL leads to one of them."""
        wanted = urlsplit(url)
        with self._lock:
            known = [urlsplit(each) for each in self._urls]
        return any(
            each.port == wanted.port and (each.hostname == wanted.hostname or is_loopback_url(url))
            for each in known
        )


CAPTURES = Captures()
"""The captures of this process."""

ENDPOINTS = Endpoints()
"""The endpoints of this process."""
