"""``/v1/rollouts``: captures for agents elsewhere, opened, fetched and deleted over HTTP."""

import asyncio

from fastapi import APIRouter, Response

from art.capture.captures import CAPTURES
from art.endpoint.captured import ROLLOUTS
from art.endpoint.errors import RequestError

router = APIRouter(prefix=ROLLOUTS)


@router.post("")
async def _open() -> dict[str, str]:
    """Open a capture; its URL is ``/v1/rollouts/{id}/v1``, and ``id`` the API key there."""
    return {"id": CAPTURES.lend(), "object": "rollout"}


@router.delete("/{token}", response_model=None)
async def _close(token: str) -> Response:
    """End a capture and answer with its trajectory, as JSON."""
    trajectory = CAPTURES.close(token)
    if trajectory is None:
        raise RequestError(
            404,
            "there is no such rollout: its trajectory was fetched or deleted before",
            code="rollout_not_found",
        )
    # A long one is megabytes of JSON, and others wait on this event loop.
    body = await asyncio.to_thread(trajectory.finish().model_dump_json)
    return Response(body, media_type="application/json")
