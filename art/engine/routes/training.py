"""Models: creation, training, and their checkpoints."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request

from art.engine.commands import CreateModelFrom, Refused, Sequenced
from art.engine.core import Engine
from art.engine.routes.dependencies import EngineDep
from art.engine.wire import protobuf
from art.engine.wire.json_body import JsonBody
from art.engine.wire.training_bodies import (
    CreateModelBody,
    LoadWeightsBody,
    ModelBody,
    OptimStepBody,
    SaveExternalBody,
    SaveSamplerBody,
    SaveWeightsBody,
)
from art.errors import InvalidRequestError, NotFoundError

router = APIRouter()


@router.post("/create_model")
async def create_model(body: JsonBody[CreateModelBody], engine: EngineDep) -> dict[str, Any]:
    """Add a LoRA adapter to train; the future holds ``{model_id}``."""
    return {"request_id": engine.create_model(body.command())}


@router.post("/get_info")
async def get_info(body: JsonBody[ModelBody], engine: EngineDep) -> dict[str, Any]:
    """A model's base model and adapter."""
    run = engine.sessions.model(body.model_id).run
    if run is None:
        raise NotFoundError(f"model {body.model_id!r} is not loaded yet")
    base = engine.base_model
    return {
        "type": "get_info",
        "model_id": body.model_id,
        "model_name": base.name,
        "model_data": {
            "arch": base.architecture,
            "model_name": base.name,
            "tokenizer_id": base.tokenizer_id,
        },
        "is_lora": True,
        "lora_rank": run.lora.rank,
    }


@router.post("/forward_backward")
async def forward_backward(request: Request, engine: EngineDep) -> dict[str, Any]:
    """Compute a loss, with ``forward_only`` unset its gradient too.

    The body is a protobuf ``ForwardBackwardRequest``, zstd-compressed where the header says so.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip()
    if content_type != protobuf.PROTOBUF:
        raise InvalidRequestError(
            f"send {protobuf.PROTOBUF}, not {content_type or 'no content type'}"
        )
    body = await request.body()
    encoding = request.headers.get("content-encoding", "identity")
    if encoding == "zstd":
        limit: int = request.app.state.max_body_bytes
        body = await asyncio.to_thread(protobuf.decompress, body, max_bytes=limit)
    elif encoding != "identity":
        raise InvalidRequestError(f"the body is encoded as {encoding!r}; send zstd or none")
    message = await asyncio.to_thread(protobuf.parse_forward_backward, body)
    if message.seq_id < 1:
        raise InvalidRequestError(f"seq_id is {message.seq_id}; the first is 1")
    command: Sequenced
    try:
        command = await asyncio.to_thread(protobuf.decode_forward_backward, message)
    except InvalidRequestError as error:
        command = Refused(model_id=message.model_id, seq_id=message.seq_id, error=error)
    return {"request_id": engine.submit(command), "model_id": message.model_id}


@router.post("/optim_step")
async def optim_step(body: JsonBody[OptimStepBody], engine: EngineDep) -> dict[str, Any]:
    """Take one AdamW step; the future holds ``{metrics}``."""
    return _submit(body, engine)


@router.post("/save_weights")
async def save_weights(body: JsonBody[SaveWeightsBody], engine: EngineDep) -> dict[str, Any]:
    """Write a checkpoint with the optimizer's state; the future holds ``{path}``."""
    return _submit(body, engine)


@router.post("/save_weights_for_sampler")
async def save_weights_for_sampler(
    body: JsonBody[SaveSamplerBody], engine: EngineDep
) -> dict[str, Any]:
    """Write a checkpoint to sample from; ``{path}``, or ``{sampling_session_id}`` unnamed."""
    return _submit(body, engine)


@router.post("/save_weights_external")
async def save_weights_external(
    body: JsonBody[SaveExternalBody], engine: EngineDep
) -> dict[str, Any]:
    """Write a PEFT folder to download; the future holds ``{path}``."""
    return _submit(body, engine)


@router.post("/load_weights")
async def load_weights(body: JsonBody[LoadWeightsBody], engine: EngineDep) -> dict[str, Any]:
    """Load a checkpoint into a model, or create a model from it."""
    try:
        command = body.command()
    except InvalidRequestError as error:
        if body.model_id is None or body.seq_id is None:
            raise
        refused = Refused(model_id=body.model_id, seq_id=body.seq_id, error=error)
        return {"request_id": engine.submit(refused)}
    if isinstance(command, CreateModelFrom):
        return {"request_id": engine.create_model_from(command)}
    return {"request_id": engine.submit(command)}


def _submit(
    body: OptimStepBody | SaveWeightsBody | SaveSamplerBody | SaveExternalBody, engine: Engine
) -> dict[str, Any]:
    """Queue a request at its place; what is wrong with it becomes the result of that place."""
    command: Sequenced
    try:
        command = body.command()
    except InvalidRequestError as error:
        command = Refused(model_id=body.model_id, seq_id=body.seq_id, error=error)
    return {"request_id": engine.submit(command), "model_id": body.model_id}
