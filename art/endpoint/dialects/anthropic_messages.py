"""Anthropic's dialect: ``POST /v1/messages``, streamed or not, and its ``count_tokens``.

With ``return_token_ids`` a message carries the exact tokens behind it: ``prompt_token_ids``,
``token_ids`` and ``token_logprobs``.
"""

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, StreamingResponse

from art.endpoint.body import read_body
from art.endpoint.dependencies import EndpointDependency
from art.endpoint.dialect import Dialect
from art.endpoint.dialects.anthropic_request import CountTokensRequest, MessagesRequest
from art.endpoint.errors import RequestError
from art.endpoint.events import server_sent_event
from art.endpoint.sampling import Stops
from art.endpoint.streams import stream
from art.endpoint.turns import (
    RenderedTurn,
    Turn,
    exact_tokens,
    prompt_of,
    render_turn,
    sample_turns,
)
from art.endpoint.types import SamplingOptions

_Json = dict[str, object]

_ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    503: "overloaded_error",
}


def anthropic_error(error: RequestError) -> dict[str, object]:
    """Write an error in the shape of Anthropic's API."""
    kind = _ERROR_TYPES.get(error.status)
    if kind is None:
        kind = "invalid_request_error" if error.status < 500 else "api_error"
    return {"type": "error", "error": {"type": kind, "message": error.message}, "request_id": None}


router = APIRouter(prefix="/v1/messages")
DIALECT = Dialect(router, anthropic_error)


@router.post("", response_model=None)
async def _create_message(
    request: Request, endpoint: EndpointDependency
) -> JSONResponse | StreamingResponse:
    body = await read_body(request, MessagesRequest, strict=endpoint.strict)
    rendered = await render_turn(body.sampled_turn(), endpoint)
    message = _Message(body, rendered)
    if body.stream:
        return await stream(
            sample_turns(rendered, endpoint),
            lambda turns: message.events(turns[0]),
            lambda error: [_event("error", anthropic_error(error))],
            opening=message.opening(),
        )
    (turn,) = await sample_turns(rendered, endpoint)
    return JSONResponse(message.response(turn))


@router.post("/count_tokens", response_model=None)
async def _count_tokens(request: Request, endpoint: EndpointDependency) -> dict[str, int]:
    body = await read_body(request, CountTokensRequest, strict=endpoint.strict)
    endpoint.find_model(body.model)
    prompt = await prompt_of(body.turn_request(Stops(), SamplingOptions()), endpoint)
    return {"input_tokens": len(prompt)}


@dataclass(frozen=True, slots=True)
class _Message:
    """The assistant's message that answers one request."""

    body: MessagesRequest
    rendered: RenderedTurn
    id: str = field(default_factory=lambda: f"msg_{uuid.uuid4().hex}")

    def response(self, turn: Turn) -> _Json:
        """The response of a request that is not streamed."""
        usage = self._usage(len(turn.token_ids))
        exact = self._exact_tokens(turn)
        return {**self._envelope(), "content": _blocks(turn), **_end(turn), "usage": usage, **exact}

    def opening(self) -> Iterator[str]:
        """The event that precedes sampling."""
        message = {**self._envelope(), "content": [], "usage": self._usage(0)}
        yield _event("message_start", {"message": message})

    def events(self, turn: Turn) -> Iterator[str]:
        """The events of a turn."""
        for index, block in enumerate(_blocks(turn)):
            empty, delta = _as_delta(block)
            at: _Json = {"index": index}
            yield _event("content_block_start", {**at, "content_block": empty})
            yield _event("content_block_delta", {**at, "delta": delta})
            yield _event("content_block_stop", at)
        end = {"delta": _end(turn), "usage": self._usage(len(turn.token_ids))}
        yield _event("message_delta", {**end, **self._exact_tokens(turn)})
        yield _event("message_stop", {})

    def _envelope(self) -> _Json:
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.body.model,
            "stop_reason": None,
            "stop_sequence": None,
        }

    def _usage(self, sampled: int) -> _Json:
        return {
            "input_tokens": len(self.rendered.prompt_token_ids),
            "output_tokens": sampled,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
        }

    def _exact_tokens(self, turn: Turn) -> _Json:
        return exact_tokens(self.rendered, turn) if self.body.return_token_ids else {}


def _blocks(turn: Turn) -> list[_Json]:
    blocks: list[_Json] = []
    if turn.reasoning_content is not None:
        blocks.append({"type": "thinking", "thinking": turn.reasoning_content, "signature": ""})
    if turn.content:
        blocks.append({"type": "text", "text": turn.content})
    for call in turn.tool_calls:
        tool_use = {"type": "tool_use", "id": f"toolu_{uuid.uuid4().hex[:24]}", "name": call.name}
        blocks.append({**tool_use, "input": json.loads(call.arguments)})
    return blocks


def _as_delta(block: _Json) -> tuple[_Json, _Json]:
    """A block without its content, and the delta that brings it."""
    if block["type"] == "text":
        return {**block, "text": ""}, {"type": "text_delta", "text": block["text"]}
    if block["type"] == "thinking":
        delta: _Json = {"type": "thinking_delta", "thinking": block["thinking"]}
        return {**block, "thinking": ""}, delta
    partial = json.dumps(block["input"], ensure_ascii=False)
    return {**block, "input": {}}, {"type": "input_json_delta", "partial_json": partial}


def _end(turn: Turn) -> _Json:
    matched = turn.sample.matched if isinstance(turn.sample.matched, str) else None
    reason = "end_turn" if matched is None else "stop_sequence"
    if turn.finish_reason != "stop":
        reason = "tool_use" if turn.finish_reason == "tool_calls" else "max_tokens"
    return {"stop_reason": reason, "stop_sequence": matched}


def _event(name: str, fields: _Json) -> str:
    return server_sent_event({"type": name, **fields}, name=name)
