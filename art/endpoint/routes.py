"""The routes of the OpenAI-compatible endpoint."""

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

from art.chat.template import ChatTemplate
from art.endpoint.completion import Completion, choice_from_sample, sampling_params
from art.endpoint.errors import (
    RequestError,
    add_error_handlers,
    as_request_error,
    error_body,
)
from art.endpoint.request import ChatCompletionRequest
from art.endpoint.served_models import Samplers, ServedModel


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What the routes work with.

    Attributes:
        api_key: Demanded of every request but ``/health``.
        samplers: The models that are served.
        chat_template: Renders prompts and reads completions.
        max_context_length: Of the base model, in tokens.
    """

    api_key: str
    samplers: Samplers
    chat_template: ChatTemplate
    max_context_length: int


def create_app(endpoint: Endpoint) -> FastAPI:
    """Make the endpoint's application.

    Args:
        endpoint: What its routes work with.

    Returns:
        An ASGI application.
    """
    app = FastAPI(title="art", openapi_url=None)
    app.state.endpoint = endpoint
    add_error_handlers(app)
    app.include_router(_open_routes)
    app.include_router(_routes, prefix="/v1")
    return app


async def _endpoint(request: Request) -> Endpoint:
    endpoint = request.app.state.endpoint
    assert isinstance(endpoint, Endpoint)
    return endpoint


# Dependencies and handlers are all async: FastAPI runs the others in threads, one hop for each.
EndpointDependency = Annotated[Endpoint, Depends(_endpoint)]


async def _authorize(request: Request, endpoint: EndpointDependency) -> None:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    known = secrets.compare_digest(key.strip().encode(), endpoint.api_key.encode())
    if scheme.lower() != "bearer" or not known:
        raise RequestError(
            401,
            "the API key is missing or wrong; use model.openai_client(), or the model's "
            "inference_api_key",
            code="invalid_api_key",
        )


_open_routes = APIRouter()
_routes = APIRouter(dependencies=[Depends(_authorize)])


@_open_routes.get("/health")
async def _health() -> dict[str, str]:
    return {"status": "ok"}


@_routes.get("/models")
async def _list_models(endpoint: EndpointDependency) -> dict[str, object]:
    return {"object": "list", "data": [_card(model) for model in endpoint.samplers.models()]}


# Names of base models hold slashes.
@_routes.get("/models/{name:path}")
async def _get_model(name: str, endpoint: EndpointDependency) -> dict[str, object]:
    return _card(_find_model(name, endpoint))


@_routes.post("/chat/completions", response_model=None)
async def _create_chat_completion(
    body: ChatCompletionRequest, endpoint: EndpointDependency
) -> JSONResponse | StreamingResponse:
    model = _find_model(body.model, endpoint)
    prompt = endpoint.chat_template.prompt_token_ids(
        body.messages, body.offered_tools, body.chat_template_kwargs
    )
    _check_length(prompt, body.token_limit, endpoint.max_context_length)
    if body.stream:
        events = _stream(model, prompt, body, endpoint)
        return StreamingResponse(events, media_type="text/event-stream")
    completion = await _complete(model, prompt, body, endpoint)
    return JSONResponse(completion.chat_completion().model_dump(mode="json"))


async def _complete(
    model: ServedModel, prompt: list[int], body: ChatCompletionRequest, endpoint: Endpoint
) -> Completion:
    sampler = await endpoint.samplers.sampler(model)
    response = await sampler.sample(
        prompt,
        body.num_samples,
        sampling_params(body, endpoint.chat_template),
        body.top_logprobs or 0,
    )
    if body.top_logprobs and any(each.topk_logprobs is None for each in response.sequences):
        raise RequestError(
            400, "this Tinker server returns no top_logprobs; leave it out", param="top_logprobs"
        )
    choices = [
        choice_from_sample(index, sample, prompt, body, endpoint.chat_template)
        for index, sample in enumerate(response.sequences)
    ]
    return Completion(body.model, prompt, choices)


async def _stream(
    model: ServedModel, prompt: list[int], body: ChatCompletionRequest, endpoint: Endpoint
) -> AsyncIterator[str]:
    """Server-sent events. Once these flow an error can only be one of them."""
    try:
        completion = await _complete(model, prompt, body, endpoint)
    except Exception as error:  # noqa: BLE001 - told to the client, and logged where unforeseen
        problem = as_request_error(error)
        yield _event(JSONResponse(error_body(problem.status, problem.message, problem.code)))
        return
    options = body.stream_options
    for chunk in completion.chunks(include_usage=options is not None and options.include_usage):
        yield _event(JSONResponse(chunk.model_dump(mode="json", exclude_unset=True)))
    yield "data: [DONE]\n\n"


def _event(content: JSONResponse) -> str:
    return f"data: {bytes(content.body).decode()}\n\n"


def _find_model(name: str, endpoint: Endpoint) -> ServedModel:
    model = endpoint.samplers.find(name)
    if model is None:
        served = ", ".join(repr(each.name) for each in endpoint.samplers.models())
        raise RequestError(
            404,
            f"there is no model {name!r} here; there are {served}",
            code="model_not_found",
            param="model",
        )
    return model


def _check_length(prompt: list[int], limit: int | None, max_context_length: int) -> None:
    wanted = len(prompt) + (limit or 1)
    if wanted > max_context_length:
        raise RequestError(
            400,
            f"the messages have {len(prompt)} tokens and {limit or 1} more are to be sampled, but "
            f"the model's context is {max_context_length}; shorten the messages or lower "
            "max_tokens",
            code="context_length_exceeded",
            param="messages",
        )


def _card(model: ServedModel) -> dict[str, object]:
    return {"id": model.name, "object": "model", "created": model.created, "owned_by": "art"}
