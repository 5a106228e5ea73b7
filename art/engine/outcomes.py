"""From what a request came to, to what its client can fetch."""

import asyncio
import logging
from collections.abc import Callable

from art.engine.futures import FutureStore, Payload, failure_of
from art.engine.results import Result

logger = logging.getLogger(__name__)

Encode = Callable[[Result], Payload]


class Outcomes:
    """Encodes results away from the lanes and the event loop, and hands them to the futures.

    Its methods belong to the event loop's thread; ``encode`` runs on one of a pool.

    Args:
        futures: Where clients wait.
        encode: Makes a result ready for the wire.
    """

    def __init__(self, futures: FutureStore, encode: Encode) -> None:
        self._futures, self._encode = futures, encode
        self._encoding: set[asyncio.Task[None]] = set()

    def deliver(self, request_id: str, outcome: Result | Exception) -> None:
        """Hand over what became of a request."""
        if isinstance(outcome, Exception):
            self._fail(request_id, outcome)
            return
        task = asyncio.create_task(self._encode_and_resolve(request_id, outcome))
        self._encoding.add(task)
        task.add_done_callback(self._encoding.discard)

    async def close(self) -> None:
        """Wait for what is being encoded."""
        if self._encoding:
            await asyncio.wait(self._encoding)

    async def _encode_and_resolve(self, request_id: str, result: Result) -> None:
        try:
            payload = await asyncio.to_thread(self._encode, result)
        except Exception as error:  # noqa: BLE001 - becomes the request's result
            self._fail(request_id, error)
        else:
            self._futures.resolve(request_id, payload)

    def _fail(self, request_id: str, error: Exception) -> None:
        failure = failure_of(error)
        if failure.category == "server":
            logger.error("%s failed", request_id, exc_info=error)
        else:
            logger.info("%s was refused: %s", request_id, failure.error)
        self._futures.resolve(request_id, failure)
