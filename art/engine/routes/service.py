"""The server's health, flags and capabilities; telemetry."""

from typing import Any

from fastapi import APIRouter, Request

from art.engine.routes.dependencies import EngineDep
from art.engine.wire.json_body import JsonBody
from art.engine.wire.sdk_version import CLIENT_CONFIG, check_sdk_version
from art.engine.wire.service_bodies import ClientConfigBody

router = APIRouter()


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Say that the server is up; the one endpoint that asks for no key."""
    return {"status": "ok"}


@router.post("/client/config")
async def client_config(
    body: JsonBody[ClientConfigBody],
) -> dict[str, Any]:
    """The SDK's flags."""
    check_sdk_version(body.sdk_version)
    return dict(CLIENT_CONFIG)


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


@router.post("/telemetry")
async def telemetry(request: Request) -> dict[str, str]:
    """Take the SDK's telemetry, and keep none of it."""
    async for _ in request.stream():
        pass
    return {"status": "accepted"}
