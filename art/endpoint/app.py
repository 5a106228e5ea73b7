"""The endpoint's ASGI application: its dialects behind one key."""

from fastapi import APIRouter, FastAPI

from art.endpoint import rollouts
from art.endpoint.access import CheckAccess
from art.endpoint.captured import CaptureRollouts
from art.endpoint.dialects import (
    anthropic_messages,
    openai_chat,
    openai_completions,
    openai_models,
    openai_responses,
    vllm_generate,
)
from art.endpoint.disconnect import CancelOnDisconnect
from art.endpoint.errors import ErrorShapes, add_error_handlers
from art.endpoint.ignored_fields import ReportIgnoredFields
from art.endpoint.state import Endpoint

# To add a dialect, write a module with a Dialect and add it here.
DIALECTS = (
    openai_models.DIALECT,
    openai_chat.DIALECT,
    openai_completions.DIALECT,
    openai_responses.DIALECT,
    anthropic_messages.DIALECT,
    vllm_generate.DIALECT,
)


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
    shapes = ErrorShapes({each.router.prefix: each.error_shape for each in DIALECTS})
    app.add_middleware(CancelOnDisconnect)
    app.add_middleware(ReportIgnoredFields)
    # Added last, so that it comes first.
    app.add_middleware(
        CheckAccess, api_key=endpoint.api_key, loopback=loopback, error_shapes=shapes
    )
    app.add_middleware(
        CaptureRollouts, api_key=endpoint.api_key, loopback=loopback, error_shapes=shapes
    )
    add_error_handlers(app, shapes)
    app.include_router(_open_routes)
    app.include_router(rollouts.router)
    for dialect in DIALECTS:
        app.include_router(dialect.router)
    return app


_open_routes = APIRouter()


@_open_routes.get("/health")
async def _health() -> dict[str, str]:
    return {"status": "ok"}
