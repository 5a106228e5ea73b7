"""The thread that an executor's calls run on."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class Lane:
    """One thread for the calls of one executor, one call at a time.

    Its methods belong to the event loop's thread.

    Args:
        name: Of the thread, for logs and debuggers.
    """

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._last: Future[Any] | None = None

    @property
    def busy(self) -> bool:
        """True while a call runs or waits for its turn."""
        return self._last is not None and not self._last.done()

    async def run(self, call: Callable[[], T]) -> T:
        """Run a call on the lane's thread, after those that were handed over before.

        Args:
            call: What to run. It may read what it was made with, and nothing of the event loop's.

        Returns:
            What the call returns.

        Raises:
            Exception: What the call raises.
        """
        running = self._thread.submit(call)
        self._last = running
        return await asyncio.wrap_future(running)

    async def close(self, timeout: float) -> bool:
        """Stop taking calls, and give the running one some time to end.

        Args:
            timeout: Seconds to wait.

        Returns:
            Whether the thread is idle.
        """
        idle = asyncio.get_running_loop().run_in_executor(self._thread, lambda: None)
        done, _ = await asyncio.wait([idle], timeout=timeout)
        self._thread.shutdown(wait=False, cancel_futures=True)
        return bool(done)
