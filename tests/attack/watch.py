"""A look at a server from outside, all along: it answers, and its memory stays bounded."""

import threading
import time
from types import TracebackType

import psutil

from tests.attack.http_client import Client, NoAnswerError, Request
from tests.attack.report import Report, Violation
from tests.attack.targets import Target

HEALTH_S = 2.0
_EVERY_S = 0.2


class Watch:
    """Asks a server for its health, and measures its memory, until the ``with`` block ends.

    Args:
        target: The server.
        report: Takes violations and, at the end, the figures.
        part: The name of what is going on.
        seed: The seed of what is going on.
        path: The address of the health check.
        max_growth: The most bytes of resident memory that the server may add.
        max_health_s: Seconds within which it must answer.
    """

    def __init__(
        self,
        target: Target,
        report: Report,
        *,
        part: str,
        seed: int,
        path: str = "/api/v1/healthz",
        max_growth: int = 1 << 30,
        max_health_s: float = HEALTH_S,
    ) -> None:
        self._target, self._report, self._name = target, report, (part, seed)
        self._max_growth, self._max_health_s = max_growth, max_health_s
        self._request = Request(f"GET {path}", "GET", path)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._process = psutil.Process(target.pid)
        self.before = self.largest = self._process.memory_info().rss
        self.slowest_s = 0.0

    def __enter__(self) -> "Watch":
        self._strays = set(self._target.strays())
        self._faults = len(self._target.faults())
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        part, _ = self._name
        after = self._process.memory_info().rss
        self._report.figures.append(
            f"{part}: memory {_mib(self.before)} before, {_mib(after)} after, "
            f"{_mib(self.largest)} at most; slowest healthz {self.slowest_s * 1000:.0f} ms"
        )
        if self.largest - self.before > self._max_growth:
            self._violate(f"the memory grew by {_mib(self.largest - self.before)}")
        if strays := set(self._target.strays()) - self._strays:
            self._violate(f"new outside of its folders: {sorted(strays)[:5]}")
        for fault in self._target.faults()[self._faults :]:
            self._violate(f"a fault in its log: {fault[:500]}")

    def _run(self) -> None:
        client = Client(self._target.base_url, {}, timeout=30)
        while not self._ended.wait(_EVERY_S):
            began = time.monotonic()
            try:
                healthy = client(self._request).status == 200
            except NoAnswerError:
                healthy = False
            took = time.monotonic() - began
            self.slowest_s = max(self.slowest_s, took)
            if not healthy or took > self._max_health_s:
                self._violate(f"healthz: {'answered' if healthy else 'no answer'}, {took:.1f} s")
                if not self._process.is_running():
                    return
            self.largest = max(self.largest, self._process.memory_info().rss)
        client.close()

    def _violate(self, problem: str) -> None:
        part, seed = self._name
        self._report.violate(Violation(part, seed, None, problem))


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB"
