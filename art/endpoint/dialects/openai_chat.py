"""The OpenAI dialect of chat: ``POST /v1/chat/completions``, streamed or not.

Beside the OpenAI API's own fields each choice carries the exact tokens behind it, which training
reads: ``prompt_token_ids``, ``token_ids`` (with the token that ended the turn, if one did) and,
always, one entry of ``logprobs.content`` for each of ``token_ids``.
"""

import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, StreamingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from art.chat.template import ChatTemplate
from art.chat.tool_calls.protocol import ToolCall
from art.endpoint.body import read_body
from art.endpoint.dependencies import EndpointDependency
from art.endpoint.dialects.openai_chat_request import ChatCompletionRequest
from art.endpoint.errors import error_event
from art.endpoint.events import server_sent_event
from art.endpoint.state import Endpoint
from art.endpoint.turns import RenderedTurn, Turn, render_turn, sample_turns

router = APIRouter(prefix="/v1/chat/completions")

_Json = dict[str, object]


@router.post("", response_model=None)
async def _create_chat_completion(
    request: Request, endpoint: EndpointDependency
) -> JSONResponse | StreamingResponse:
    body = await read_body(request, ChatCompletionRequest)
    rendered = render_turn(body.turn_request(), endpoint)
    if body.stream:
        options = body.stream_options
        include_usage = options is not None and options.include_usage
        events = _stream(rendered, endpoint, include_usage=include_usage)
        return StreamingResponse(events, media_type="text/event-stream")
    completion = _Completion(rendered, await sample_turns(rendered, endpoint))
    response = completion.chat_completion(endpoint.chat_template)
    return JSONResponse(response.model_dump(mode="json"))


async def _stream(
    rendered: RenderedTurn, endpoint: Endpoint, *, include_usage: bool
) -> AsyncIterator[str]:
    """Server-sent events. Once these flow an error can only be one of them."""
    try:
        completion = _Completion(rendered, await sample_turns(rendered, endpoint))
    except Exception as error:  # noqa: BLE001 - told to the client, and logged where unforeseen
        yield error_event(error)
        return
    for chunk in completion.chunks(endpoint.chat_template, include_usage=include_usage):
        yield server_sent_event(chunk.model_dump(mode="json", exclude_unset=True))
    yield "data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class _Completion:
    """A request with its sampled turns, one for each choice."""

    rendered: RenderedTurn
    turns: list[Turn]

    def chat_completion(self, template: ChatTemplate) -> ChatCompletion:
        """The response of a request that is not streamed."""
        choices = [
            {
                "index": index,
                "finish_reason": turn.finish_reason,
                "message": _message(turn),
                "logprobs": _logprobs(turn, template),
                **self._exact_tokens(turn),
            }
            for index, turn in enumerate(self.turns)
        ]
        return ChatCompletion.model_validate(
            {**self._header("chat.completion"), "choices": choices, "usage": self._usage()}
        )

    def chunks(
        self, template: ChatTemplate, *, include_usage: bool
    ) -> Iterator[ChatCompletionChunk]:
        """The response of a streamed request.

        A Tinker server answers with whole samples, so a choice arrives in two chunks: the message,
        then the reason of its end with its exact tokens.

        Args:
            template: Writes the texts of tokens.
            include_usage: Whether a last chunk without choices has the numbers of tokens.
        """
        header = self._header("chat.completion.chunk")
        for index, turn in enumerate(self.turns):
            for fields in (
                {
                    "delta": _delta(turn),
                    "logprobs": _logprobs(turn, template),
                    "finish_reason": None,
                },
                {"delta": {}, "finish_reason": turn.finish_reason, **self._exact_tokens(turn)},
            ):
                choice = {"index": index, **fields}
                yield ChatCompletionChunk.model_validate({**header, "choices": [choice]})
        if include_usage:
            usage = self._usage()
            yield ChatCompletionChunk.model_validate({**header, "choices": [], "usage": usage})

    def _header(self, kind: str) -> _Json:
        return {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": self.rendered.request.model,
            "object": kind,
        }

    def _usage(self) -> _Json:
        sampled = sum(len(turn.token_ids) for turn in self.turns)
        prompt = len(self.rendered.prompt_token_ids)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": sampled,
            "total_tokens": prompt + sampled,
        }

    def _exact_tokens(self, turn: Turn) -> _Json:
        return {
            "prompt_token_ids": self.rendered.prompt_token_ids,
            "token_ids": turn.token_ids,
        }


def _message(turn: Turn) -> _Json:
    message: _Json = {"role": "assistant", "content": turn.content}
    if turn.reasoning is not None:
        message["reasoning_content"] = turn.reasoning
    if turn.tool_calls:
        message["content"] = turn.content or None
        message["tool_calls"] = _tool_calls(turn.tool_calls)
    return message


def _delta(turn: Turn) -> _Json:
    message = _message(turn)
    if turn.tool_calls:
        calls = _tool_calls(turn.tool_calls)
        message["tool_calls"] = [{"index": index, **call} for index, call in enumerate(calls)]
    return message


def _tool_calls(calls: Sequence[ToolCall]) -> list[_Json]:
    # An id that the model wrote itself is kept, since its chat template shows it again.
    written = [call.id for call in calls]
    return [
        {
            "id": call.id
            if call.id and written.count(call.id) == 1
            else f"call_{uuid.uuid4().hex[:24]}",
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for call in calls
    ]


def _logprobs(turn: Turn, template: ChatTemplate) -> _Json:
    content = [
        {
            **_token_logprob(token_id, logprob, template),
            "top_logprobs": [
                _token_logprob(other, other_logprob, template)
                for other, other_logprob in (alternatives or [])
            ],
        }
        for token_id, logprob, alternatives in zip(
            turn.token_ids, turn.logprobs, turn.top_logprobs, strict=True
        )
    ]
    return {"content": content, "refusal": None}


def _token_logprob(token_id: int, logprob: float, template: ChatTemplate) -> _Json:
    text = template.token_text(token_id)
    # A token that holds part of a character decodes to U+FFFD, whose bytes are not the token's.
    own_bytes = None if "\ufffd" in text else list(text.encode())
    return {"token": text, "bytes": own_bytes, "logprob": logprob}
