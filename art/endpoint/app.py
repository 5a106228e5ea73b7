"""The endpoint's ASGI application: its dialects behind one key."""

from fastapi import APIRouter, FastAPI

from art.endpoint import rollouts
from art.endpoint.access import CheckAccess
from art.endpoint.captured import CaptureRollouts
from art.endpoint.dialects import openai_chat, openai_models
from art.endpoint.disconnect import CancelOnDisconnect
from art.endpoint.errors import add_error_handlers
from art.endpoint.state import Endpoint

# To add a dialect, write a module with a router and add the router here.
ROUTERS = (openai_models.router, openai_chat.router)


def create_app(endpoint: Endpoint, *, loopback: bool = True) -> FastAPI:
    """Make the endpoint's application.

    Args:
        endpoint: The state that its routes share.
        loopback: Whether it is served on loopback alone.

    Returns:
        An ASGI application.
    """
    app = FastAPI(title="art", openapi_url=None, redirect_slashes=False)
    app.state.endpoint = endpoint
    app.add_middleware(CancelOnDisconnect)
    # Added last, so that it comes first.
    app.add_middleware(CheckAccess, api_key=endpoint.api_key, loopback=loopback)
    app.add_middleware(CaptureRollouts, api_key=endpoint.api_key)
    add_error_handlers(app)
    app.include_router(_open_routes)
    app.include_router(rollouts.router)
    for router in ROUTERS:
        app.include_router(router)
    return app


_open_routes = APIRouter()


@_open_routes.get("/health")
async def _health() -> dict[str, str]:
    return {"status": "ok"}
