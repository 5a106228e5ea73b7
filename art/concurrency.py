"""A limit on how many calls of an asynchronous function run at once."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Hashable
from typing import ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from art.errors import ConfigurationError

P = ParamSpec("P")
R = TypeVar("R")


def limit_concurrency(
    n: int, derive_key: Callable[..., Hashable] | None = None
) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Awaitable[R]]]:
    """Decorate an asynchronous function, so that at most ``n`` calls of it run at once.

    ::

        @limit_concurrency(10, derive_key=lambda url, **_: urlsplit(url).hostname)
        async def fetch(url: str, timeout: float = 10) -> str: ...

    All functions that one decorator decorates share the limit. It holds for each event loop.

    Args:
        n: How many calls run at once; at least 1.
        derive_key: Given a call's arguments, says which limit it counts towards; calls with
            different keys do not wait for each other. ``None`` is one limit for all.

    Returns:
        The decorator.

    Raises:
        art.errors.ConfigurationError: ``n`` is less than 1.
    """
    if n < 1:
        raise ConfigurationError(f"limit_concurrency takes a limit of at least 1, not {n}")
    # Of each event loop, since a semaphore belongs to the one in which it first had to wait.
    semaphores: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, asyncio.Semaphore]] = (
        WeakKeyDictionary()
    )

    def decorate(function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
        @functools.wraps(function)
        async def limited(*args: P.args, **kwargs: P.kwargs) -> R:
            key = None if derive_key is None else derive_key(*args, **kwargs)
            of_loop = semaphores.setdefault(asyncio.get_running_loop(), {})
            async with of_loop.setdefault(key, asyncio.Semaphore(n)):
                return await function(*args, **kwargs)

        return limited

    return decorate
