"""Calls of the Tinker SDK, with art's errors instead of its own."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import TypeVar

import tinker

from art.errors import (
    ArtError,
    ConfigurationError,
    EngineError,
    EngineUnreachableError,
    InvalidRequestError,
)
from art.tinker.connection import Connection

T = TypeVar("T")


async def sdk_call(connection: Connection, call: Awaitable[T], doing: str) -> T:
    """Await a call of the SDK, and convert its errors.

    Args:
        connection: The connection to the server that the call goes to.
        call: A future that the SDK returned.
        doing: A description for the error, such as ``"saving a checkpoint"``.

    Returns:
        The call's result.

    Raises:
        art.errors.ConfigurationError: The API key cannot be used, or the server refused it.
        art.errors.InvalidRequestError: The server says that the request is wrong.
        art.errors.EngineUnreachableError: The server cannot be reached, or fell silent.
        art.errors.EngineError: The server answered with an error.
    """
    try:
        return await connection.guard(call)
    except EngineUnreachableError as error:
        raise EngineUnreachableError(f"{doing}: {error}") from error
    except (tinker.TinkerError, ValueError) as error:
        # The SDK raises ValueError where polling for a result is refused.
        if isinstance(error, ArtError):
            raise
        raise _art_error(error, doing) from error


async def blocking_sdk_call(connection: Connection, call: Callable[[], T], doing: str) -> T:
    """Run a blocking call of the SDK in a thread, and convert its errors as :func:`sdk_call` does.

    The SDK opens a session synchronously, and retries for minutes where nothing answers. The
    thread is a daemon, so that the call can be abandoned.
    """
    result: Future[T] = Future()

    def run() -> None:
        # Nobody may be waiting any more: a cancelled future takes no result.
        if not result.set_running_or_notify_cancel():
            return
        try:
            result.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised again where it is awaited
            result.set_exception(error)

    threading.Thread(target=run, name="art-tinker-sdk", daemon=True).start()
    return await sdk_call(connection, asyncio.wrap_future(result), doing)


def _art_error(error: Exception, doing: str) -> ArtError:
    if isinstance(error, tinker.AuthenticationError | tinker.PermissionDeniedError):
        return ConfigurationError(f"{doing}: the Tinker server refused the API key: {error}")
    if type(error) is tinker.TinkerError:
        # The SDK itself, before it sends anything: a key that cannot be one, say.
        return ConfigurationError(f"{doing}: {error}")
    if isinstance(error, tinker.APIConnectionError):
        return EngineUnreachableError(f"{doing}: the Tinker server cannot be reached: {error}")
    if _is_users_fault(error):
        return InvalidRequestError(f"{doing}: the Tinker server refused: {error}")
    return EngineError(f"{doing}: the Tinker server failed: {error}")


def _is_users_fault(error: Exception) -> bool:
    if isinstance(error, tinker.RequestFailedError):
        return error.category is tinker.types.RequestErrorCategory.User
    return isinstance(error, tinker.APIStatusError) and error.status_code < 500
