"""Middleware that checks a request before a route sees it: key, SDK version, size."""

import hmac
import logging

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from art._internal.http_origin import check_origin
from art.engine.wire.errors import error_response, unexpected_response
from art.engine.wire.sdk_version import check_sdk_version
from art.errors import ArtError, AuthenticationError

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 256 << 20

_OPEN_PATHS = frozenset({"/api/v1/healthz"})


class AccessMiddleware:
    """ASGI middleware in front of the application.

    It looks at the headers before a body is read, so that a stranger cannot make the server hold
    one, and answers what no route foresaw.

    Args:
        app: What is behind it.
        api_key: The only key that is let in.
        max_body_bytes: The largest body.
        loopback: Whether the server listens on loopback alone.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        api_key: str,
        max_body_bytes: int = MAX_BODY_BYTES,
        loopback: bool = True,
    ) -> None:
        self._app = app
        self._loopback = loopback
        self._api_key = api_key.encode()
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it with the error."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            check_origin(scope["headers"], loopback=self._loopback)
            if scope["path"] not in _OPEN_PATHS:
                self._check(Headers(scope=scope))
        except ArtError as error:
            await error_response(error)(scope, receive, send)
            return
        await self._pass(scope, receive, send)

    def _check(self, headers: Headers) -> None:
        given = headers.get("x-api-key", "").encode()
        if not hmac.compare_digest(given, self._api_key):
            raise AuthenticationError(
                "the API key is missing or wrong: set TINKER_API_KEY to the key of this engine"
            )
        version = headers.get("x-stainless-package-version")
        if version is not None:  # only the SDK sends it
            check_sdk_version(version)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, self._limited(receive), watched_send)
        except Exception as error:
            logger.exception("%s %s met a fault of this server", scope["method"], scope["path"])
            if started:
                raise
            await unexpected_response(error)(scope, receive, send)

    def _limited(self, receive: Receive) -> Receive:
        size = 0

        async def limited() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._max_body_bytes:
                raise HTTPException(413, f"the body is over {self._max_body_bytes} bytes")
            return message

        return limited
