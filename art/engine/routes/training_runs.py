"""Training runs and checkpoints, as they lie on disk."""

import asyncio
import hashlib
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request

from art.engine.checkpoint_metadata import Checkpoint, TrainingRun
from art.engine.core import Engine
from art.engine.routes.dependencies import EngineDep
from art.engine.wire.checkpoint_bodies import CopyWeightsBody, TtlBody, WeightsInfoBody
from art.engine.wire.json_body import JsonBody
from art.engine.wire.metadata import texts
from art.errors import InvalidRequestError, NotFoundError
from art.formats.checkpoint_paths import CheckpointPath, Kind

router = APIRouter()

_TYPES: dict[Kind, str] = {
    "weights": "training",
    "sampler_weights": "sampler",
    "external_weights": "external",
}


@router.get("/training_runs")
async def list_training_runs(
    engine: EngineDep, limit: int = 20, offset: int = 0, project_id: str | None = None
) -> dict[str, Any]:
    """Every model that is alive or has checkpoints, or those of a project, the last used first."""
    runs = _training_runs(engine, await asyncio.to_thread(engine.store.list), project_id)
    page = runs[offset : offset + limit]
    return {"training_runs": page, "cursor": _cursor(offset, limit, len(runs))}


@router.get("/training_runs/{run_id}")
async def get_training_run(run_id: str, engine: EngineDep) -> dict[str, Any]:
    """One training run."""
    runs = _training_runs(engine, await asyncio.to_thread(engine.store.list, run_id))
    for run in runs:
        if run["training_run_id"] == run_id:
            return run
    raise NotFoundError(f"there is no training run {run_id!r}")


@router.get("/training_runs/{run_id}/checkpoints")
async def list_checkpoints(run_id: str, engine: EngineDep) -> dict[str, Any]:
    """The checkpoints of one training run, the newest first."""
    checkpoints = await asyncio.to_thread(engine.store.list, run_id)
    return {"checkpoints": [_checkpoint(checkpoint) for checkpoint in checkpoints]}


@router.get("/checkpoints")
async def list_all_checkpoints(
    engine: EngineDep, limit: int = 100, offset: int = 0
) -> dict[str, Any]:
    """All checkpoints, the newest first."""
    found = await asyncio.to_thread(engine.store.list)
    page = [_checkpoint(checkpoint) for checkpoint in found[offset : offset + limit]]
    return {"checkpoints": page, "cursor": _cursor(offset, limit, len(found))}


@router.delete("/training_runs/{run_id}/checkpoints/{kind}/{name}", status_code=204)
async def delete_checkpoint(run_id: str, kind: str, name: str, engine: EngineDep) -> None:
    """Delete a checkpoint."""
    path = CheckpointPath.parse(f"tinker://{run_id}/{kind}/{name}")
    await asyncio.to_thread(engine.store.delete, path)


@router.put("/training_runs/{run_id}/checkpoints/{kind}/{name}/ttl", status_code=204)
async def set_checkpoint_ttl(
    run_id: str,
    kind: str,
    name: str,
    body: JsonBody[TtlBody],
    engine: EngineDep,
) -> None:
    """Let a checkpoint expire, or keep it."""
    path = CheckpointPath.parse(f"tinker://{run_id}/{kind}/{name}")
    await asyncio.to_thread(engine.store.set_ttl, path, body.ttl_seconds)


@router.api_route(
    "/training_runs/{run_id}/checkpoints/{kind}/{name}/publish", methods=["POST", "DELETE"]
)
async def publish_checkpoint(run_id: str, kind: str, name: str) -> None:
    """Refuse: there is nobody to publish to."""
    raise InvalidRequestError(
        f"this server cannot publish {run_id}/{kind}/{name}: its checkpoints are on its own disk"
    )


@router.post("/copy_weights")
async def copy_weights(
    body: JsonBody[CopyWeightsBody], request: Request, engine: EngineDep
) -> dict[str, Any]:
    """Copy a checkpoint into a training run of its own; a repeated request copies once."""
    token = request.headers.get("x-tinker-weights-access-token") or body.weights_access_token
    if token is not None:
        raise InvalidRequestError(
            "this server has one owner; weights_access_token is for the hosted service"
        )
    if body.session_id is not None and body.model_seq_id is not None:
        session = engine.sessions.get(body.session_id)
        run_id, project_id = f"{body.session_id}:train:{body.model_seq_id}", session.project_id
        if run_id in session.models:
            raise InvalidRequestError(f"{run_id} is a model; a copy needs a number of its own")
    elif body.destination_project_id is not None:
        key = request.headers.get("x-idempotency-key") or uuid.uuid4().hex
        run_id = f"{hashlib.sha256(key.encode()).hexdigest()[:16]}:train:0"
        project_id = body.destination_project_id
    else:
        raise InvalidRequestError("send destination_project_id, or session_id and model_seq_id")
    copy = await asyncio.to_thread(
        engine.store.copy,
        CheckpointPath.parse(body.source_path),
        run_id,
        project_id,
        ttl_seconds=body.ttl_seconds,
    )
    return {"tinker_path": str(copy.path)}


@router.post("/weights_info")
async def weights_info(body: JsonBody[WeightsInfoBody], engine: EngineDep) -> dict[str, Any]:
    """The facts that a client needs to load a checkpoint."""
    path = CheckpointPath.parse(body.tinker_path)
    checkpoint, _ = await asyncio.to_thread(engine.store.read, path)
    lora = checkpoint.run.lora
    return {
        "base_model": checkpoint.run.base_model,
        "is_lora": True,
        "lora_rank": lora.rank,
        "train_unembed": lora.train_unembed,
        "train_mlp": lora.train_mlp,
        "train_attn": lora.train_attn,
    }


def _cursor(offset: int, limit: int, total: int) -> dict[str, int]:
    return {"offset": offset, "limit": limit, "total_count": total}


def _training_runs(
    engine: Engine, checkpoints: Sequence[Checkpoint], project_id: str | None = None
) -> list[dict[str, Any]]:
    """The runs of these checkpoints (the newest first) and of the models that are alive."""
    runs: dict[str, TrainingRun] = {}
    used: dict[str, datetime] = {}
    last: dict[tuple[str, str], Checkpoint] = {}
    for model in engine.sessions.models():
        if model.run is not None:
            runs[model.model_id], used[model.model_id] = model.run, model.last_request
    for checkpoint in checkpoints:
        run_id = checkpoint.path.run_id
        runs.setdefault(run_id, checkpoint.run)
        used.setdefault(run_id, checkpoint.created)
        last.setdefault((run_id, checkpoint.path.kind), checkpoint)
    ordered = sorted(runs, key=lambda run_id: used[run_id].astimezone(UTC), reverse=True)
    return [
        {
            "training_run_id": run_id,
            "base_model": runs[run_id].base_model,
            "model_owner": "local",
            "is_lora": True,
            "lora_rank": runs[run_id].lora.rank,
            "last_request_time": used[run_id].isoformat(),
            "last_checkpoint": _checkpoint(last.get((run_id, "weights"))),
            "last_sampler_checkpoint": _checkpoint(last.get((run_id, "sampler_weights"))),
            "user_metadata": texts(runs[run_id].user_metadata),
        }
        for run_id in ordered
        if project_id is None or runs[run_id].project_id == project_id
    ]


def _checkpoint(checkpoint: Checkpoint | None) -> dict[str, Any] | None:
    if checkpoint is None:
        return None
    path = checkpoint.path
    return {
        "checkpoint_id": f"{path.kind}/{path.name}",
        "checkpoint_type": _TYPES[path.kind],
        "time": checkpoint.created.isoformat(),
        "tinker_path": str(path),
        "base_model": checkpoint.run.base_model,
        "size_bytes": checkpoint.size_bytes,
        "public": False,
        "user_metadata": texts(checkpoint.user_metadata),
        "expires_at": checkpoint.expires and checkpoint.expires.isoformat(),
    }
