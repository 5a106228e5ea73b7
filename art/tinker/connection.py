"""The connection of a backend to its Tinker server."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from art.errors import EngineUnreachableError
from art.tinker.server_watch import ServerWatch

T = TypeVar("T")


@dataclass(frozen=True)
class Connection:
    """The address of a Tinker server, and the key for it.

    Attributes:
        base_url: The server's address; ``None`` is the SDK's own default, which is
            ``TINKER_BASE_URL`` or else the hosted service.
        api_key: Sent with every request. Not shown by ``repr``.
        silence_limit_s: Seconds that the server may be silent while an answer is waited for. A
            server that computes is not silent: it says that it is alive when it is asked.
    """

    base_url: str | None
    api_key: str = field(repr=False)
    silence_limit_s: float = field(default=120.0, kw_only=True)

    @cached_property
    def _watch(self) -> ServerWatch:
        return ServerWatch(self.base_url, self.silence_limit_s)

    @property
    def url(self) -> str:
        """The server's address, the SDK's default where ``base_url`` is ``None``."""
        return self._watch.url

    async def guard(self, awaitable: Awaitable[T]) -> T:
        """Await an answer of the server, but not beyond its silence.

        A connection that has other ways to see its server end overrides this. It is called on two
        event loops: the caller's, and that of the OpenAI-compatible endpoint.

        Args:
            awaitable: The pending answer. Cancelling the call cancels it.

        Returns:
            The answer.

        Raises:
            EngineUnreachableError: The server gave no answer of any kind for
                ``silence_limit_s``.
        """
        task = asyncio.ensure_future(awaitable)
        try:
            with self._watch.waiting() as silent:
                either: set[asyncio.Future[Any]] = {task, silent}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
        finally:
            task.cancel()
        raise EngineUnreachableError(
            f"the Tinker server at {self._watch.url} has given no answer of any kind for "
            f"{self.silence_limit_s:g} s: check that it runs and can be reached"
        )
