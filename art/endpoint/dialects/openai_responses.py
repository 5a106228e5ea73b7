"""The OpenAI dialect of responses: ``POST /v1/responses``, streamed or not.

With ``return_token_ids`` a response carries the exact tokens behind it: ``prompt_token_ids``,
``token_ids`` and ``token_logprobs``.
"""

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, StreamingResponse

from art.chat.template import ChatTemplate
from art.endpoint.body import read_body
from art.endpoint.conversation import new_call_id
from art.endpoint.dependencies import EndpointDependency
from art.endpoint.dialect import Dialect
from art.endpoint.dialects.openai_responses_events import ResponseEvents
from art.endpoint.dialects.openai_responses_request import WITH_LOGPROBS, ResponsesRequest
from art.endpoint.dialects.openai_tokens import token_logprobs
from art.endpoint.errors import RequestError
from art.endpoint.streams import stream
from art.endpoint.turns import RenderedTurn, Turn, exact_tokens, render_turn, sample_turns

router = APIRouter(prefix="/v1/responses")
DIALECT = Dialect(router)

_Json = dict[str, object]


@router.post("", response_model=None)
async def _create_response(
    request: Request, endpoint: EndpointDependency
) -> JSONResponse | StreamingResponse:
    body = await read_body(request, ResponsesRequest, strict=endpoint.strict)
    rendered = await render_turn(body.turn_request(), endpoint)
    response = _Response(body, rendered, endpoint.chat_template)
    if body.stream:
        events = ResponseEvents(response.envelope())
        return await stream(
            sample_turns(rendered, endpoint),
            lambda turns: _events(events, response, turns[0]),
            lambda error: _failure(events, response, error),
            opening=events.opening(),
        )
    (turn,) = await sample_turns(rendered, endpoint)
    return JSONResponse(response.finished(turn, response.items(turn)))


def _events(events: ResponseEvents, response: "_Response", turn: Turn) -> Iterator[str]:
    items = response.items(turn)
    yield from events.items(items)
    yield events.closing(response.finished(turn, items))


def _failure(events: ResponseEvents, response: "_Response", error: RequestError) -> Iterator[str]:
    code = "invalid_prompt" if error.status < 500 else "server_error"
    failed = {"status": "failed", "error": {"code": code, "message": error.message}}
    yield events.closing({**response.envelope(), **failed})


@dataclass(frozen=True, slots=True)
class _Response:
    """A response of one request."""

    body: ResponsesRequest
    rendered: RenderedTurn
    template: ChatTemplate
    id: str = field(default_factory=lambda: f"resp_{uuid.uuid4().hex}")
    created_at: int = field(default_factory=lambda: int(time.time()))

    def envelope(self) -> _Json:
        """The response before anything is sampled."""
        body = self.body
        sent = body.model_dump(
            mode="json",
            by_alias=True,
            exclude_unset=True,
            include={"tools", "tool_choice", "text", "reasoning", "metadata"},
        )
        options = self.rendered.options
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created_at,
            "status": "in_progress",
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "model": body.model,
            "output": [],
            "parallel_tool_calls": self.rendered.request.parallel_tool_calls,
            "previous_response_id": None,
            "store": False,
            "temperature": options.temperature,
            "top_p": options.top_p,
            "truncation": "disabled",
            "usage": None,
            "tools": sent.get("tools") or [],
            "tool_choice": sent.get("tool_choice") or "auto",
            "text": sent.get("text") or {"format": {"type": "text"}},
            "reasoning": sent.get("reasoning"),
            "metadata": sent.get("metadata") or {},
        }

    def finished(self, turn: Turn, items: list[_Json]) -> _Json:
        """The response of a turn.

        Args:
            turn: The turn.
            items: Its output items.
        """
        cut = turn.finish_reason == "length"
        return {
            **self.envelope(),
            "status": "incomplete" if cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": items,
            "usage": self._usage(turn),
            **self._exact_tokens(turn),
        }

    def items(self, turn: Turn) -> list[_Json]:
        """The output items of a turn: reasoning, a message and calls, as far as it has them."""
        status = "incomplete" if turn.finish_reason == "length" else "completed"
        items: list[_Json] = []
        if turn.reasoning_content is not None:
            content = [{"type": "reasoning_text", "text": turn.reasoning_content}]
            item: _Json = {"id": _new_id("rs"), "type": "reasoning", "summary": []}
            items.append({**item, "content": content, "status": status})
        if turn.content or not turn.tool_calls:
            item = {"id": _new_id("msg"), "type": "message", "role": "assistant"}
            items.append({**item, "content": [self._text(turn)], "status": status})
        for call in turn.tool_calls:
            item = {"id": _new_id("fc"), "type": "function_call", "call_id": new_call_id()}
            call_fields = {"name": call.name, "arguments": call.arguments}
            items.append({**item, **call_fields, "status": "completed"})
        return items

    def _text(self, turn: Turn) -> _Json:
        asked = self.body.top_logprobs or WITH_LOGPROBS in (self.body.include or [])
        logprobs = token_logprobs(turn.sample, self.template) if asked else []
        return {
            "type": "output_text",
            "text": turn.content,
            "annotations": [],
            "logprobs": [{**each, "bytes": each["bytes"] or []} for each in logprobs],
        }

    def _usage(self, turn: Turn) -> _Json:
        prompt, sampled = len(self.rendered.prompt_token_ids), len(turn.token_ids)
        return {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": sampled,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": prompt + sampled,
        }

    def _exact_tokens(self, turn: Turn) -> _Json:
        return exact_tokens(self.rendered, turn) if self.body.return_token_ids else {}


def _new_id(kind: str) -> str:
    return f"{kind}_{uuid.uuid4().hex}"
