"""Errors of the endpoint, each in the shape of the dialect that was spoken to."""

import logging
from collections.abc import Callable, Mapping

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from art.errors import (
    ChatTemplateError,
    ConfigurationError,
    EngineDiedError,
    EngineError,
    ForeignOriginError,
    InvalidRequestError,
)

logger = logging.getLogger(__name__)


class RequestError(Exception):
    """A request that cannot be answered.

    Args:
        status: The HTTP status.
        message: What is wrong and what to do.
        code: An identifier that programs can test, such as ``"model_not_found"``.
        param: The field of the request that is wrong.
    """

    def __init__(
        self, status: int, message: str, *, code: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param


# Writes an error as the JSON body of a dialect.
ErrorShape = Callable[[RequestError], Mapping[str, object]]


def openai_error(error: RequestError) -> dict[str, object]:
    """Write an error in the OpenAI API's shape."""
    fields = {"message": error.message, "type": error_type(error.status)}
    return {"error": {**fields, "param": error.param, "code": error.code}}


def error_type(status: int) -> str:
    """Name the type of an error, as the OpenAI API calls it."""
    kind = {401: "authentication_error", 403: "permission_error", 404: "not_found_error"}
    return kind.get(status) or ("invalid_request_error" if status < 500 else "server_error")


def as_request_error(error: Exception) -> RequestError:
    """Convert any error to a :class:`RequestError` with the HTTP status that it deserves.

    Args:
        error: The error that was raised while a request was handled.

    Returns:
        The same error. The caller's mistakes are 4xx; a failure of the Tinker server is 502, or
        503 once its process has ended; anything else is 500, and logged.
    """
    if isinstance(error, RequestError):
        return error
    if isinstance(error, ForeignOriginError):
        return RequestError(403, str(error), code="foreign_origin")
    if isinstance(error, ChatTemplateError):
        return RequestError(400, str(error), param="messages")
    if isinstance(error, EngineDiedError):
        return RequestError(503, str(error), code="engine_died")
    if isinstance(error, EngineError):
        return RequestError(502, str(error), code="engine_error")
    if isinstance(error, ConfigurationError | InvalidRequestError):
        return RequestError(400, str(error))
    logger.error("the endpoint failed", exc_info=error)
    return RequestError(500, f"{type(error).__name__}: {error}")


class ErrorShapes:
    """The shapes of errors by path: that of the longest prefix, or else the OpenAI API's.

    Args:
        by_prefix: Paths of dialects, each with the shape of its errors.
    """

    def __init__(self, by_prefix: Mapping[str, ErrorShape]) -> None:
        self._by_prefix = sorted(by_prefix.items(), key=lambda item: -len(item[0]))

    def response(
        self, error: Exception, path: str, headers: Mapping[str, str] | None = None
    ) -> JSONResponse:
        """The response that tells a client of an error; see :func:`as_request_error`."""
        problem = as_request_error(error)
        shapes = (shape for prefix, shape in self._by_prefix if path.startswith(prefix))
        shape = next(shapes, openai_error)
        return JSONResponse(shape(problem), problem.status, dict(headers or {}))


def add_error_handlers(app: FastAPI, shapes: ErrorShapes) -> None:
    """Answer every error of an app in the shape of its path's dialect."""

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        refusal = RequestError(error.status_code, str(error.detail))
        return shapes.response(refusal, request.url.path, error.headers)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        return shapes.response(error, request.url.path)

    for kind in (RequestError, ConfigurationError, InvalidRequestError, EngineError):
        app.add_exception_handler(kind, failed)
