"""Sessions, and what the server says of itself."""

from typing import Any

from fastapi import APIRouter, Request

from art.engine.routes.dependencies import EngineDep
from art.engine.wire.bodies import (
    ClientConfigBody,
    CreateSessionBody,
    FinishSessionBody,
    HeartbeatBody,
)
from art.engine.wire.json_body import JsonBody
from art.engine.wire.sdk_version import check_sdk_version

router = APIRouter()


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Say that the server is up; the one endpoint that asks for no key."""
    return {"status": "ok"}


@router.post("/client/config")
async def client_config(
    body: JsonBody[ClientConfigBody],
) -> dict[str, Any]:
    """The SDK's flags. On loopback, compression costs more than it saves."""
    check_sdk_version(body.sdk_version)
    return {"pjwt_auth_enabled": False, "proto_compress_fwdbwd": False}


@router.post("/client/dynamic_config")
async def client_dynamic_config(
    body: JsonBody[ClientConfigBody],
) -> dict[str, Any]:
    """The SDK's flags that may change while it runs."""
    check_sdk_version(body.sdk_version)
    return {"sample_cancel_enabled": True}


@router.get("/get_server_capabilities")
async def get_server_capabilities(engine: EngineDep) -> dict[str, Any]:
    """The one base model in memory, and which controls of art's own its sampler has.

    The SDK passes over what it does not know.
    """
    model = engine.base_model
    return {
        "supported_models": [
            {
                "model_name": model.name,
                "max_context_length": model.max_context_length,
                "trainable": True,
                "sampleable": True,
            }
        ],
        "art_sampling_controls": sorted(engine.sampling_controls),
    }


@router.post("/create_session")
async def create_session(body: JsonBody[CreateSessionBody], engine: EngineDep) -> dict[str, Any]:
    """Begin a session."""
    check_sdk_version(body.sdk_version)
    session = engine.sessions.create(
        display_name=body.display_name, user_metadata=body.user_metadata
    )
    return {"type": "create_session", "session_id": session.session_id}


@router.post("/session_heartbeat")
async def session_heartbeat(body: JsonBody[HeartbeatBody], engine: EngineDep) -> dict[str, Any]:
    """Keep a session alive; 410 once it has ended."""
    engine.sessions.heartbeat(body.session_id)
    return {"type": "session_heartbeat"}


@router.get("/sessions")
async def list_sessions(engine: EngineDep, limit: int = 20, offset: int = 0) -> dict[str, Any]:
    """The sessions that are alive, the newest first."""
    sessions = [session.session_id for session in engine.sessions.all()]
    return {"sessions": sessions[offset : offset + limit]}


@router.get("/sessions/{session_id}")
async def get_session(session_id: str, engine: EngineDep) -> dict[str, Any]:
    """The models and samplers of a session."""
    session = engine.sessions.get(session_id)
    return {
        "training_run_ids": list(session.models),
        "sampler_ids": list(session.sampling_sessions),
        "user_metadata": session.user_metadata,
        "display_name": session.display_name,
    }


@router.post("/sessions/{session_id}/finish", status_code=204)
async def finish_session(
    session_id: str,
    body: JsonBody[FinishSessionBody],
    engine: EngineDep,
) -> None:
    """End a session, and free what it held."""
    await engine.end_session(session_id)


@router.post("/telemetry")
async def telemetry(request: Request) -> dict[str, str]:
    """Take the SDK's telemetry, and keep none of it."""
    async for _ in request.stream():
        pass
    return {"status": "accepted"}
