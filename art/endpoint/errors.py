"""Errors of the endpoint, in the OpenAI API's shape."""

import logging
from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from art.endpoint.events import server_sent_event
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


def error_body(
    status: int, message: str, code: str | None = None, param: str | None = None
) -> dict[str, object]:
    """The JSON of an error in the OpenAI API's shape."""
    kind = {401: "authentication_error", 403: "permission_error", 404: "not_found_error"}.get(
        status
    )
    if kind is None:
        kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


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


def error_event(error: Exception) -> str:
    """Write an error as a server-sent event, for a response that has begun."""
    problem = as_request_error(error)
    return server_sent_event(error_body(problem.status, problem.message, problem.code))


def error_response(error: Exception) -> JSONResponse:
    """The response that tells a client of an error; see :func:`as_request_error`."""
    return _response(as_request_error(error))


def add_error_handlers(app: FastAPI) -> None:
    """Answer every error of an app in the OpenAI API's shape."""

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        refusal = RequestError(error.status_code, str(error.detail))
        return _response(refusal, error.headers)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        return error_response(error)

    for kind in (RequestError, ConfigurationError, InvalidRequestError, EngineError):
        app.add_exception_handler(kind, failed)


def _response(error: RequestError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    body = error_body(error.status, error.message, error.code, error.param)
    return JSONResponse(body, error.status, dict(headers or {}))
