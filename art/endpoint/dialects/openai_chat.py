"""The OpenAI dialect of chat: ``POST /v1/chat/completions``, streamed or not.

Beside the OpenAI API's own fields each choice carries the exact tokens behind it, which training
reads: ``prompt_token_ids``, ``token_ids`` (with the token that ended the turn, if one did) and,
always, one entry of ``logprobs.content`` for each of ``token_ids``.
"""

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, StreamingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from art.chat.template import ChatTemplate
from art.chat.tool_calls.protocol import ToolCall
from art.endpoint.body import read_body
from art.endpoint.conversation import new_call_id
from art.endpoint.dependencies import EndpointDependency
from art.endpoint.dialect import Dialect
from art.endpoint.dialects.openai_chat_request import ChatCompletionRequest
from art.endpoint.dialects.openai_tokens import token_logprobs, usage
from art.endpoint.errors import openai_error
from art.endpoint.events import DONE, server_sent_event
from art.endpoint.streams import stream
from art.endpoint.turns import RenderedTurn, Turn, render_turn, sample_turns

router = APIRouter(prefix="/v1/chat/completions")
DIALECT = Dialect(router)

_Json = dict[str, object]


@router.post("", response_model=None)
async def _create_chat_completion(
    request: Request, endpoint: EndpointDependency
) -> JSONResponse | StreamingResponse:
    body = await read_body(request, ChatCompletionRequest, strict=endpoint.strict)
    rendered = await render_turn(body.turn_request(), endpoint)
    view = _View(body, endpoint.chat_template)
    if body.stream:
        return await stream(
            sample_turns(rendered, endpoint),
            lambda turns: _events(_Completion(rendered, turns, view)),
            lambda error: [server_sent_event(openai_error(error))],
        )
    completion = _Completion(rendered, await sample_turns(rendered, endpoint), view)
    return JSONResponse(completion.chat_completion().model_dump(mode="json"))


def _events(completion: "_Completion") -> Iterator[str]:
    for chunk in completion.chunks():
        yield server_sent_event(chunk.model_dump(mode="json", exclude_unset=True))
    yield DONE


@dataclass(frozen=True, slots=True)
class _View:
    """The fields that a request asks of its response."""

    body: ChatCompletionRequest
    template: ChatTemplate

    def message(self, turn: Turn) -> _Json:
        message: _Json = {"role": "assistant", "content": turn.content}
        if turn.reasoning_content is not None and self.body.include_reasoning is not False:
            message["reasoning_content"] = turn.reasoning_content
        if turn.tool_calls:
            message["content"] = turn.content or None
            message["tool_calls"] = _tool_calls(turn.tool_calls)
        return message

    def delta(self, turn: Turn) -> _Json:
        message = self.message(turn)
        if turn.tool_calls:
            calls = _tool_calls(turn.tool_calls)
            message["tool_calls"] = [{"index": index, **call} for index, call in enumerate(calls)]
        return message

    def logprobs(self, turn: Turn) -> _Json:
        as_id = self.body.return_tokens_as_token_ids is True
        return {"content": token_logprobs(turn.sample, self.template, as_id=as_id), "refusal": None}


@dataclass(frozen=True, slots=True)
class _Completion:
    """A request with its sampled turns, one for each choice."""

    rendered: RenderedTurn
    turns: list[Turn]
    view: _View

    def chat_completion(self) -> ChatCompletion:
        """The response of a request that is not streamed."""
        choices = [
            {
                "index": index,
                "finish_reason": turn.finish_reason,
                "message": self.view.message(turn),
                "logprobs": self.view.logprobs(turn),
                **self._exact_tokens(turn),
            }
            for index, turn in enumerate(self.turns)
        ]
        return ChatCompletion.model_validate(
            {
                **self._header("chat.completion"),
                **self._prompt(),
                "choices": choices,
                "usage": self._usage(),
            }
        )

    def chunks(self) -> Iterator[ChatCompletionChunk]:
        """The response of a streamed request.

        A Tinker server answers with whole samples, so a choice arrives in two chunks: the message,
        then the reason of its end with its exact tokens.
        """
        header = self._header("chat.completion.chunk")
        prompt = self._prompt()
        for index, turn in enumerate(self.turns):
            for fields in (
                {
                    "delta": self.view.delta(turn),
                    "logprobs": self.view.logprobs(turn),
                    "finish_reason": None,
                },
                {"delta": {}, "finish_reason": turn.finish_reason, **self._exact_tokens(turn)},
            ):
                choice = {"index": index, **fields}
                yield ChatCompletionChunk.model_validate({**header, **prompt, "choices": [choice]})
                prompt = {}
        options = self.view.body.stream_options
        if options is not None and options.include_usage:
            usage = self._usage()
            yield ChatCompletionChunk.model_validate({**header, "choices": [], "usage": usage})

    def _header(self, kind: str) -> _Json:
        return {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": self.rendered.request.model,
            "object": kind,
        }

    def _prompt(self) -> _Json:
        if not self.view.body.return_token_ids:
            return {}
        return {"prompt_token_ids": self.rendered.prompt_token_ids}

    def _usage(self) -> _Json:
        samples = [turn.sample for turn in self.turns]
        return usage(self.rendered.prompt_token_ids, samples)

    def _exact_tokens(self, turn: Turn) -> _Json:
        return {
            "prompt_token_ids": self.rendered.prompt_token_ids,
            "token_ids": turn.token_ids,
        }


def _tool_calls(calls: Sequence[ToolCall]) -> list[_Json]:
    # An id that the model wrote itself is kept, since its chat template shows it again.
    written = [call.id for call in calls]
    return [
        {
            "id": call.id if call.id and written.count(call.id) == 1 else new_call_id(),
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for call in calls
    ]
