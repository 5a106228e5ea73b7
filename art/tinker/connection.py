"""How a backend reaches its Tinker server."""

from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Connection:
    """A Tinker server, and the key for it.

    Attributes:
        base_url: The server's address; ``None`` is the SDK's own default, which is
            ``TINKER_BASE_URL`` or else the hosted service.
        api_key: Sent with every request. Not shown by ``repr``.
    """

    base_url: str | None
    api_key: str = field(repr=False)

    async def guard(self, awaitable: Awaitable[T]) -> T:
        """Wait for an answer of the server.

        Called from more than one thread's event loop: from the caller's, and from that of the
        OpenAI-compatible endpoint.

        Args:
            awaitable: The pending answer.

        Returns:
            The answer. A connection that knows more of its server can override this, to raise
            instead of waiting for a server that has gone.
        """
        return await awaitable
