"""Middleware that checks a request before a route sees it: key, SDK version, size."""

import hmac
import logging

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from art._internal.http_origin import check_origin
from art.engine.signed_urls import UrlSigner
from art.engine.wire.errors import error_response, unexpected_response
from art.engine.wire.sdk_version import check_sdk_version
from art.errors import ArtError, AuthenticationError

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 256 << 20

# Bodies of the largest size that may be in memory at a time.
_BODIES_AT_ONCE = 4
_OPEN_PATHS = frozenset({"/api/v1/healthz"})
_SIGNED_PATHS = "/api/v1/downloads/"


class AccessMiddleware:
    """ASGI middleware in front of the application.

    It looks at the headers before a body is read, so that a stranger cannot make the server hold
    one, and answers what no route foresaw.

    Args:
        app: What is behind it.
        api_key: The only key that is let in.
        max_body_bytes: The largest body.
        loopback: Whether the server listens on loopback alone.
        signer: Signs the URLs that let a download in without the key.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        api_key: str,
        signer: UrlSigner,
        max_body_bytes: int = MAX_BODY_BYTES,
        loopback: bool = True,
    ) -> None:
        self._app = app
        self._loopback = loopback
        self._api_key = api_key.encode()
        self._signer = signer
        self._max_body_bytes = max_body_bytes
        self._held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it with the error."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            check_origin(scope["headers"], loopback=self._loopback)
            if scope["path"] not in _OPEN_PATHS and not self._is_signed(scope):
                self._check(Headers(scope=scope))
        except ArtError as error:
            await error_response(error)(scope, receive, send)
            return
        await self._pass(scope, receive, send)

    def _is_signed(self, scope: Scope) -> bool:
        path: str = scope["path"]
        query: bytes = scope["query_string"]
        return path.startswith(_SIGNED_PATHS) and self._signer.is_valid(
            path, query.decode("latin-1")
        )

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
        body = _Body(self)

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        async def counted_receive() -> Message:
            message = await receive()
            body.add(len(message.get("body", b"")))
            return message

        try:
            await self._app(scope, counted_receive, watched_send)
        except ClientDisconnect:
            logger.info("%s %s was cut short", scope["method"], scope["path"])
        except Exception as error:
            logger.exception("%s %s met a fault of this server", scope["method"], scope["path"])
            if started:
                raise
            await unexpected_response(error)(scope, receive, send)
        finally:
            self._held_bytes -= body.size

    def hold(self, size: int, body_size: int) -> None:
        """Count bytes of a body that is being read, and refuse what is too much.

        Args:
            size: The bytes that came.
            body_size: The bytes of that body so far.
        """
        self._held_bytes += size
        if body_size > self._max_body_bytes:
            raise HTTPException(413, f"the body is over {self._max_body_bytes} bytes")
        if self._held_bytes > _BODIES_AT_ONCE * self._max_body_bytes:
            raise HTTPException(
                429, f"bodies of {self._held_bytes} bytes are being read; send it again later"
            )


class _Body:
    """The body of one request, as far as it was read."""

    def __init__(self, middleware: AccessMiddleware) -> None:
        self._middleware = middleware
        self.size = 0

    def add(self, size: int) -> None:
        self.size += size
        self._middleware.hold(size, self.size)
