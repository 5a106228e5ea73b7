"""Results of requests that take time."""

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from art.engine.core import Engine
from art.engine.futures import Failure, Outcome
from art.engine.routes.dependencies import EngineDep
from art.engine.samplers import sampling_group
from art.engine.wire.json_body import JsonBody
from art.engine.wire.sampling_bodies import (
    CancelFutureBody,
    RetrieveFutureBody,
    RetrieveFuturesBody,
)

router = APIRouter()

# The SDK gives up a poll after 45 seconds.
_LONG_POLL_S = 30.0


@router.post("/retrieve_future")
async def retrieve_future(
    body: JsonBody[RetrieveFutureBody],
    request: Request,
    engine: EngineDep,
) -> Response:
    """Wait for one result; 408 asks the client to come again."""
    outcome = await _outcome_unless_gone(body.request_id, request, engine)
    if outcome is None:
        again = {"type": "try_again", "request_id": body.request_id, "queue_state": "active"}
        return JSONResponse(again, status_code=408)
    engine.futures.mark_fetched(body.request_id)
    if isinstance(outcome, Failure):
        return JSONResponse({"error": outcome.error, "category": outcome.category})
    return Response(outcome.body, media_type=outcome.content_type)


@router.post("/retrieve_futures")
async def retrieve_futures(body: JsonBody[RetrieveFuturesBody], engine: EngineDep) -> JSONResponse:
    """Wait for whichever requests of a sampler end next."""
    target = body.target
    engine.sessions.sampling_session(target.sampling_session_id)
    timeout = _LONG_POLL_S if body.timeout is None else min(max(body.timeout, 0.0), _LONG_POLL_S)
    group = sampling_group(target.sampling_session_id, target.cloned_sampler_id)
    ended, cursor = await engine.futures.wait_for_group(group, body.prev_cursor, timeout)
    completions: list[dict[str, object]] = [
        {"state": "failed", "request_id": request_id}
        if isinstance(outcome, Failure)
        else {
            "state": "finished",
            "request_id": request_id,
            "response_payload_uncompressed_size": len(outcome.body),
        }
        for request_id, outcome in ended
    ]
    return JSONResponse({"completions": completions, "cursor": cursor})


@router.post("/cancel_future", status_code=204)
async def cancel_future(body: JsonBody[CancelFutureBody], engine: EngineDep) -> None:
    """Drop a sampling request, waiting or running; training requests run to their end."""
    engine.samplers.cancel(body.request_id)


async def _outcome_unless_gone(request_id: str, request: Request, engine: Engine) -> Outcome | None:
    """Wait for an outcome for as long as the client does."""
    waiting = asyncio.ensure_future(engine.futures.wait(request_id, _LONG_POLL_S))
    # The body has been read, so the next message is the end of the connection.
    leaving = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            return waiting.result()
        engine.samplers.abandon(request_id)
        return None
    finally:
        waiting.cancel()
        leaving.cancel()
