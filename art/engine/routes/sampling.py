"""Samplers, and sampling from them."""

from typing import Any

from fastapi import APIRouter

from art.engine.routes.dependencies import EngineDep
from art.engine.wire.json_body import JsonBody
from art.engine.wire.sampling_bodies import (
    CreateSamplingSessionBody,
    JoinSamplingSessionBody,
    SampleBody,
)

router = APIRouter()


@router.post("/create_sampling_session")
async def create_sampling_session(
    body: JsonBody[CreateSamplingSessionBody],
    engine: EngineDep,
) -> dict[str, Any]:
    """Give a session a sampler of a checkpoint, or of the base model."""
    return {
        "type": "create_sampling_session",
        "sampling_session_id": await engine.samplers.open(body.command()),
    }


@router.post("/join_sampling_session")
async def join_sampling_session(
    body: JsonBody[JoinSamplingSessionBody], engine: EngineDep
) -> dict[str, Any]:
    """Give one more copy of a sampling client the number of its own block of requests."""
    counter = engine.sessions.join(body.sampling_session_id)
    return {"type": "join_sampling_session", "client_counter": counter}


@router.get("/samplers/{sampler_id}")
async def get_sampler(sampler_id: str, engine: EngineDep) -> dict[str, Any]:
    """The weights of a sampler."""
    sampler = engine.sessions.sampling_session(sampler_id)
    return {
        "sampler_id": sampler_id,
        "base_model": engine.base_model.name,
        "model_path": None if sampler.path is None else str(sampler.path),
    }


@router.post("/asample")
async def asample(body: JsonBody[SampleBody], engine: EngineDep) -> dict[str, Any]:
    """Sample; the SDK wants the ids of all sequences with the answer."""
    request_id = engine.samplers.sample(body.command())
    return {
        "request_id": request_id,
        "sample_sequence_ids": [f"{request_id}:{index}" for index in range(body.num_samples)],
    }
