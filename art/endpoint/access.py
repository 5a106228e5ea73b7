"""ASGI middleware that checks who asks, before a byte of the request's body is read."""

import secrets

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from art._internal.http_origin import check_origin
from art.endpoint.errors import RequestError, error_response
from art.errors import ForeignOriginError

_OPEN_PATHS = frozenset({"/health"})


class CheckAccess:
    """Refuses requests of other sites' pages, and those without the key.

    Args:
        app: The application behind it.
        api_key: The only key that is let in.
        loopback: Whether the server listens on loopback alone.
    """

    def __init__(self, app: ASGIApp, *, api_key: str, loopback: bool) -> None:
        self._app = app
        self._api_key = api_key.encode()
        self._loopback = loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] == "http":
            try:
                self._check(scope)
            except (RequestError, ForeignOriginError) as error:
                await error_response(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        check_origin(scope["headers"], loopback=self._loopback)
        if scope["path"] in _OPEN_PATHS:
            return
        scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
        known = secrets.compare_digest(key.strip().encode(), self._api_key)
        if scheme.lower() != "bearer" or not known:
            raise RequestError(
                401,
                "the API key is missing or wrong; use model.openai_client(), or the model's "
                "inference_api_key",
                code="invalid_api_key",
            )
