"""HTTP errors that say which request failed, and why by the server's own words."""

import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

_LONGEST_DETAIL = 500  # characters


def log_http_errors(func: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
    """Decorate an asynchronous function, so that HTTP errors in it are logged.

    The error itself goes on as it is, with a note (:pep:`678`) of status code, URL and the
    server's ``detail`` or ``error``; so ``except openai.RateLimitError`` around the call works.
    Errors of httpx and of openai are recognised, by the ``response`` that they carry.

    Args:
        func: The function.

    Returns:
        The decorated function.
    """

    @functools.wraps(func)
    async def logged(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await func(*args, **kwargs)
        except Exception as error:
            if description := _describe(error):
                logger.error("%s: %s", getattr(func, "__qualname__", func), description)
                error.add_note(description)
            raise

    return logged


def _describe(error: Exception) -> str:
    # The exceptions of httpx, httpx2 and openai have no type in common but these attributes.
    response: Any = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if not isinstance(status, int):
        return ""
    try:
        body = response.json()
    except (ValueError, RuntimeError):  # no JSON, or a stream that was not read
        body = None
    fields = body if isinstance(body, dict) else {}
    detail = fields.get("detail", fields.get("error", body))
    text = "" if detail is None else f" {detail!s:.{_LONGEST_DETAIL}}"
    return f"[HTTP {status}] {response.request.url}{text}"
