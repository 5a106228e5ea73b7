"""The connection of a backend to its Tinker server."""

from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Connection:
    """The address of a Tinker server, and the key for it.

    Attributes:
        base_url: The server's address; ``None`` is the SDK's own default, which is
            ``TINKER_BASE_URL`` or else the hosted service.
        api_key: Sent with every request. Not shown by ``repr``.
    """

    base_url: str | None
    api_key: str = field(repr=False)

    async def guard(self, awaitable: Awaitable[T]) -> T:
        """Await an answer of the server.

        A connection whose server can end overrides this, to raise instead of waiting for ever. It
        is called on two event loops: the caller's, and that of the OpenAI-compatible endpoint.

        Args:
            awaitable: The pending answer. Cancelling the call cancels it.

        Returns:
            The answer.
        """
        return await awaitable
