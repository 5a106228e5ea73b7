"""Sessions: their beginning, their end, and search."""

import asyncio
from dataclasses import replace
from typing import Any

from fastapi import APIRouter

from art.engine.routes.dependencies import EngineDep
from art.engine.session_search import OWNER, FoundSession, search
from art.engine.wire.json_body import JsonBody
from art.engine.wire.metadata import texts
from art.engine.wire.sdk_version import check_sdk_version
from art.engine.wire.service_bodies import (
    CreateSessionBody,
    FinishSessionBody,
    HeartbeatBody,
    ProjectBody,
    SearchSessionsBody,
)

router = APIRouter()


@router.post("/create_session")
async def create_session(body: JsonBody[CreateSessionBody], engine: EngineDep) -> dict[str, Any]:
    """Begin a session."""
    check_sdk_version(body.sdk_version)
    session = engine.sessions.create(
        display_name=body.display_name,
        user_metadata=body.user_metadata,
        project_id=body.project_id,
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
    await engine.end_session(session_id, body.finish())


@router.put("/sessions/{session_id}/project", status_code=204)
async def assign_project(session_id: str, body: JsonBody[ProjectBody], engine: EngineDep) -> None:
    """Move a live session, its models and their checkpoints into a project."""
    session = engine.sessions.get(session_id)
    session.project_id = body.project_id
    for model in session.models.values():
        if model.run is not None:
            model.run = replace(model.run, project_id=body.project_id)
        await asyncio.to_thread(engine.store.set_project, model.model_id, body.project_id)


@router.post("/sessions/search")
async def search_sessions(body: JsonBody[SearchSessionsBody], engine: EngineDep) -> dict[str, Any]:
    """Find sessions, those that ended too; a page at a time, the newest first."""
    checkpoints = await asyncio.to_thread(engine.store.list)
    found, more = search(engine.sessions, checkpoints, body.query())
    last = found[-1].session if more else None
    return {
        "sessions": [_summary(each) for each in found],
        "next_cursor": last
        and {"last_created_at": last.created.isoformat(), "last_session_id": last.session_id},
    }


def _summary(found: FoundSession) -> dict[str, Any]:
    session = found.session
    return {
        "session_id": session.session_id,
        "created_at": session.created.isoformat(),
        "owner": OWNER,
        "project_id": session.project_id,
        "status": _status(found),
        "checkpoints_count": found.checkpoints_count,
        "checkpoint_storage_bytes": found.checkpoint_bytes,
        "display_name": session.display_name,
        "user_metadata": texts(session.user_metadata),
    }


def _status(found: FoundSession) -> dict[str, Any] | None:
    finish = found.session.finish
    if finish is not None:
        reason = {"type": finish.reason}
        return {"type": "client_finished", "reason": reason, "detail": finish.detail}
    return found.status and {"type": found.status[0]}
