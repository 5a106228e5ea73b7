"""Retries: a decorator that calls a function again after it raised."""

import functools
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from art.errors import ConfigurationError

if TYPE_CHECKING:
    from tenacity import RetryCallState

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

    The n-th repetition waits ``delay * backoff_factor ** (n - 1)`` seconds, without jitter. A
    ``functools.partial`` of an async function and an object with an async ``__call__`` are async
    functions too.

    Args:
        max_attempts: How often to call it at most; at least 1.
        delay: Seconds to wait before the second call.
        backoff_factor: The delay is multiplied by it after each failure.
        exceptions: The exceptions to try again after. Anything else is raised at once, and so is
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

    def report(function: Callable[..., object], state: "RetryCallState") -> None:
        assert state.outcome is not None  # there is one after each attempt
        error = cast(Exception, state.outcome.exception())
        if on_retry is not None:
            on_retry(error, state.attempt_number)
            return
        logger.warning(
            "Attempt %d of %d of %r: %r", state.attempt_number, max_attempts, function, error
        )

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        # Loaded here: `import art; art.retry` stays light.
        from tenacity import (
            AsyncRetrying,
            Retrying,
            retry_if_exception_type,
            stop_after_attempt,
            wait_exponential,
        )

        options: dict[str, Any] = {
            "stop": stop_after_attempt(max_attempts),
            "wait": wait_exponential(multiplier=delay, exp_base=backoff_factor),
            "retry": retry_if_exception_type(exceptions),
            "before_sleep": functools.partial(report, function),
            "reraise": True,
        }
        if _is_async(function):

            async def attempt(*args: P.args, **kwargs: P.kwargs) -> Any:
                return await cast("Callable[P, Awaitable[Any]]", function)(*args, **kwargs)

            @functools.wraps(function)
            async def call_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                return await AsyncRetrying(**options)(attempt, *args, **kwargs)

            return cast("Callable[P, R]", call_async)

        @functools.wraps(function)
        def call_sync(*args: P.args, **kwargs: P.kwargs) -> R:
            return Retrying(**options)(function, *args, **kwargs)

        return call_sync

    return decorate


def _is_async(function: Callable[..., object]) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - not whether it is there: whether async
    )
