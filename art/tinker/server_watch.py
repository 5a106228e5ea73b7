"""A bound on how long an answer is waited for while its server gives no sign of life.

The SDK sends a request again, for minutes and sometimes for ever, where nothing answers. A long
computation must not be cut off, so the bound is not on the call: while calls are pending the server
is asked for its health, and only its silence ends them.
"""

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator

import httpx

from art._internal.proxies import is_loopback_url

logger = logging.getLogger(__name__)

# The SDK's default, where TINKER_BASE_URL is not set.
_HOSTED = "https://tinker.thinkingmachines.dev/services/tinker-prod"
# Seconds between two questions, and until one of them counts as unanswered.
_PERIOD_S = 5.0


class ServerWatch:
    """Watches one server while calls to it are pending, from whichever event loops.

    Args:
        base_url: The server's address; ``None`` is ``TINKER_BASE_URL`` or else the hosted service.
        limit_s: Seconds without any answer after which pending calls are told.
    """

    def __init__(self, base_url: str | None, limit_s: float) -> None:
        self.url = (base_url or os.environ.get("TINKER_BASE_URL") or _HOSTED).rstrip("/")
        self.limit_s = limit_s
        self._lock = threading.Lock()
        self._waiting: dict[asyncio.Future[None], asyncio.AbstractEventLoop] = {}
        self._watching = False

    @contextlib.contextmanager
    def waiting(self) -> "Iterator[asyncio.Future[None]]":
        """Watch the server while the block runs.

        Yields:
            A future of the running event loop, done once the server has been silent for too long.
        """
        loop = asyncio.get_running_loop()
        silent: asyncio.Future[None] = loop.create_future()
        with self._lock:
            self._waiting[silent] = loop
            if not self._watching:
                self._watching = True
                threading.Thread(target=self._watch, name="art-server-watch", daemon=True).start()
        try:
            yield silent
        finally:
            with self._lock:
                self._waiting.pop(silent, None)
            silent.cancel()

    def _watch(self) -> None:
        period = min(_PERIOD_S, self.limit_s / 3)
        heard = time.monotonic()
        with httpx.Client(timeout=period, trust_env=not is_loopback_url(self.url)) as client:
            while True:
                time.sleep(period)
                if self._nobody_waits():
                    return
                if self._answers(client):
                    heard = time.monotonic()
                elif time.monotonic() - heard > self.limit_s:
                    self._tell()
                    # Calls that begin from now on get the whole time.
                    heard = time.monotonic()

    def _nobody_waits(self) -> bool:
        with self._lock:
            self._watching = bool(self._waiting)
            return not self._watching

    def _answers(self, client: httpx.Client) -> bool:
        try:
            # Any status is an answer.
            client.get(f"{self.url}/api/v1/healthz")
        except httpx.HTTPError as error:
            logger.info("no answer from %s: %s", self.url, error)
            return False
        return True

    def _tell(self) -> None:
        with self._lock:
            told, self._waiting = self._waiting, {}
        for silent, loop in told.items():
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(_finish, silent)


def _finish(silent: "asyncio.Future[None]") -> None:
    if not silent.done():
        silent.set_result(None)
