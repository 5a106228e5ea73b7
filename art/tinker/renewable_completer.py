"""A checkpoint to sample from, through sessions that come and go with their server."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from art.endpoint.types import SampledTokens, SamplingOptions
from art.errors import EngineDiedError, EngineError, EngineUnreachableError, InvalidRequestError
from art.tinker.server_session import ServerSession
from art.tinker.token_completer import SamplingClientCompleter

OpenSession = Callable[[], Awaitable[ServerSession]]
# Given the session that was lost; opens one in its place.
RenewSession = Callable[[ServerSession], Awaitable[object]]


class RenewableCompleter:
    """An :class:`art.endpoint.types.TokenCompleter` that outlives its server's restarts.

    Args:
        path: The checkpoint's path on the server; ``None`` is the base model.
        open_session: Returns the session that the trainer uses.
        renew_session: Opens a session in the place of one that the server has lost.
    """

    def __init__(
        self, path: str | None, open_session: OpenSession, renew_session: RenewSession
    ) -> None:
        self._path = path
        self._open_session, self._renew_session = open_session, renew_session
        self._lock = asyncio.Lock()
        self._opened: tuple[ServerSession, SamplingClientCompleter] | None = None

    async def complete(
        self, prompt_token_ids: Sequence[int], options: SamplingOptions
    ) -> list[SampledTokens]:
        """Sample completions of a prompt; once more where the server began anew meanwhile.

        Raises:
            art.errors.InvalidRequestError: The server refuses the request.
            art.errors.EngineError: The server failed, or cannot be reached.
        """
        session = await self._open_session()
        try:
            return await self._complete(session, prompt_token_ids, options)
        except (EngineDiedError, EngineUnreachableError):
            raise
        except (InvalidRequestError, EngineError):
            # One of all the requests that failed together asks, and renews for the others.
            async with self._lock:
                if await self._open_session() is session:
                    if not await session.is_lost():
                        raise
                    await self._renew_session(session)
        return await self._complete(await self._open_session(), prompt_token_ids, options)

    async def _complete(
        self, session: ServerSession, prompt_token_ids: Sequence[int], options: SamplingOptions
    ) -> list[SampledTokens]:
        async with self._lock:
            if self._opened is None or self._opened[0] is not session:
                self._opened = session, await session.open_completer(self._path)
            completer = self._opened[1]
        return await completer.complete(prompt_token_ids, options)
