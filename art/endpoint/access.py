"""ASGI middleware that checks who asks, before a byte of the request's body is read."""

import secrets

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from art._internal.http_origin import check_origin
from art.endpoint.errors import ErrorShapes, RequestError
from art.errors import ForeignOriginError

_OPEN_PATHS = frozenset({"/health"})


class CheckAccess:
    """Refuses requests of other sites' pages, and those without the key.

    The key is a bearer token, as OpenAI's clients send it, or the header ``x-api-key``, as
    Anthropic's do.

    Args:
        app: The application behind it.
        api_key: The only key that is let in.
        loopback: Whether the server listens on loopback alone.
        error_shapes: The shapes of errors.
    """

    def __init__(
        self, app: ASGIApp, *, api_key: str, loopback: bool, error_shapes: ErrorShapes
    ) -> None:
        self._app = app
        self._api_key = api_key.encode()
        self._loopback = loopback
        self._error_shapes = error_shapes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] == "http":
            try:
                self._check(scope)
            except (RequestError, ForeignOriginError) as error:
                response = self._error_shapes.response(error, scope["path"])
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        check_origin(scope["headers"], loopback=self._loopback)
        if scope["path"] in _OPEN_PATHS:
            return
        headers = Headers(scope=scope)
        scheme, _, token = headers.get("authorization", "").partition(" ")
        bearer = token.strip() if scheme.lower() == "bearer" else ""
        if not any(self._is_key(sent) for sent in (bearer, headers.get("x-api-key", ""))):
            raise RequestError(
                401,
                "the API key is missing or wrong; use model.openai_client(), or the model's "
                "inference_api_key",
                code="invalid_api_key",
            )

    def _is_key(self, sent: str) -> bool:
        return secrets.compare_digest(sent.encode(), self._api_key)
