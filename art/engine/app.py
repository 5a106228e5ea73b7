"""The application: the wire's routes in front of an :class:`~art.engine.core.Engine`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from art.engine.core import Engine
from art.engine.middleware import MAX_BODY_BYTES, AccessMiddleware
from art.engine.routes import ROUTERS
from art.engine.signed_urls import UrlSigner
from art.engine.wire.errors import add_error_handlers

API_PREFIX = "/api/v1"


def create_app(
    engine: Engine,
    *,
    api_key: str,
    max_body_bytes: int = MAX_BODY_BYTES,
    loopback: bool = True,
) -> FastAPI:
    """Build the application.

    Args:
        engine: What the routes ask. The application starts it, and closes it at its own end.
        api_key: The key that clients must send as ``X-API-Key``.
        max_body_bytes: The largest request body, compressed or not.
        loopback: Whether the server listens on loopback alone. Requests under another name than
            this machine's are then refused.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await engine.start()
        yield
        await engine.close()

    app = FastAPI(
        title="art engine",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.engine = engine
    app.state.max_body_bytes = max_body_bytes
    app.state.signer = signer = UrlSigner()
    for router in ROUTERS:
        app.include_router(router, prefix=API_PREFIX)
    add_error_handlers(app)
    app.add_middleware(
        AccessMiddleware,
        api_key=api_key,
        signer=signer,
        max_body_bytes=max_body_bytes,
        loopback=loopback,
    )
    return app
