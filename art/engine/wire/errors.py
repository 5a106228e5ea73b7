"""Errors to HTTP status codes: the one place of the mapping.

The SDK sends a request again, for about five minutes, on 408, 409, 429 and every 5xx, which looks
like a hang. So none of these is used for what cannot succeed later.
"""

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from art.engine.futures import Failure, failure_of
from art.errors import (
    ArtError,
    AuthenticationError,
    EngineBusyError,
    ForeignOriginError,
    InvalidBodyError,
    NotFoundError,
    RequestTooLargeError,
    SessionEndedError,
    UnknownBaseModelError,
)

logger = logging.getLogger(__name__)

_STATUS_OF: tuple[tuple[type[ArtError], int], ...] = (
    (AuthenticationError, 401),
    (ForeignOriginError, 403),
    (UnknownBaseModelError, 404),
    (NotFoundError, 404),
    (SessionEndedError, 410),
    (RequestTooLargeError, 413),
    (InvalidBodyError, 422),
    (EngineBusyError, 429),
)
_STATUS_OF_THE_REST = 400


def error_response(error: ArtError) -> JSONResponse:
    """The answer that tells a client of an error."""
    status = next((code for kind, code in _STATUS_OF if isinstance(error, kind)), None)
    return _response(failure_of(error), status or _STATUS_OF_THE_REST)


def add_error_handlers(app: FastAPI) -> None:
    """Answer every error of a route as :func:`error_response` does."""
    app.add_exception_handler(ArtError, _on_art_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_parameters)
    app.add_exception_handler(HTTPException, _on_http_error)


def unexpected_response(error: Exception) -> JSONResponse:
    """The answer to a request that met a fault of this server."""
    return _response(failure_of(error), _STATUS_OF_THE_REST)


def _response(failure: Failure, status: int) -> JSONResponse:
    return JSONResponse({"error": failure.error, "category": failure.category}, status)


async def _on_art_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ArtError)  # what it was registered for
    logger.info("%s %s was refused: %s", request.method, request.url.path, error)
    return error_response(error)


async def _on_invalid_parameters(request: Request, error: Exception) -> JSONResponse:
    """Answer what is wrong with a path or a query; bodies are read by ``json_body``."""
    assert isinstance(error, RequestValidationError)
    names = ", ".join(sorted({str(problem["loc"][-1]) for problem in error.errors()}))
    text = f"{request.method} {request.url.path}: the request is not valid: wrong {names:.200}"
    return _response(Failure(text, "user"), 422)


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    detail = error.detail
    if error.status_code == 404:
        detail = f"this server has no {request.method} {request.url.path}"
    return _response(Failure(f"{detail:.2000}", "user"), error.status_code)
