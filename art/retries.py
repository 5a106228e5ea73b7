"""Trying again."""

import asyncio
import functools
import inspect
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar, cast

from art.errors import ConfigurationError

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


def retry(
    max_attempts: int = 3,
    delay: float = 0.25,
    backoff_factor: float = 2.0,
    exceptions: tuple[type[Exception], ...] = (Exception,),
    on_retry: Callable[[Exception, int], None] | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function, plain or async, so that it is called again when it raises.

    ::

        @art.retry(exceptions=(openai.APIConnectionError,))
        async def rollout(model, scenario): ...

    Args:
        max_attempts: How often to call it at most; at least 1.
        delay: Seconds to wait before the second call.
        backoff_factor: What the delay is multiplied by after each failure.
        exceptions: What to try again after. Anything else is raised at once, and so is
            cancellation.
        on_retry: Called with the exception and the number of the attempt that raised it, instead
            of a warning being logged.

    Returns:
        The decorator. The decorated function raises what its last attempt raised.

    Raises:
        art.errors.ConfigurationError: A number is out of its range.
    """
    if max_attempts < 1 or delay < 0 or backoff_factor < 0:
        raise ConfigurationError(
            "max_attempts must be at least 1, delay and backoff_factor not negative; they are "
            f"{max_attempts}, {delay} and {backoff_factor}."
        )

    def seconds_until_next(function: object, error: Exception, attempt: int) -> float:
        if on_retry is not None:
            on_retry(error, attempt)
        else:
            logger.warning("Attempt %d of %d of %r: %r", attempt, max_attempts, function, error)
        return delay * backoff_factor ** (attempt - 1)

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def call_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                for attempt in range(1, max_attempts):
                    try:
                        return await cast("Callable[P, Awaitable[Any]]", function)(*args, **kwargs)
                    except exceptions as error:
                        await asyncio.sleep(seconds_until_next(function, error, attempt))
                return await cast("Callable[P, Awaitable[Any]]", function)(*args, **kwargs)

            return cast("Callable[P, R]", call_async)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            for attempt in range(1, max_attempts):
                try:
                    return function(*args, **kwargs)
                except exceptions as error:
                    time.sleep(seconds_until_next(function, error, attempt))
            return function(*args, **kwargs)

        return call

    return decorate
