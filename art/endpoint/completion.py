"""What the endpoint gives: sampled tokens as the choices of a chat completion.

Beside the OpenAI API's own fields each choice carries the exact tokens behind it, which training
reads: ``prompt_token_ids``, ``token_ids`` (with the token that ended the turn, if one did) and,
always, one entry of ``logprobs.content`` for each of ``token_ids``.
"""

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import tinker
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.chat_completion import Choice

from art.chat.template import ChatTemplate
from art.chat.tool_calls.protocol import ParsedText
from art.endpoint.request import ChatCompletionRequest
from art.errors import EngineError

_Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Completion:
    """A finished request: what was asked, with which prompt, and the choices.

    Attributes:
        model: The model's name, as it was asked for.
        prompt_token_ids: The rendered prompt.
        choices: One for each sample.
    """

    model: str
    prompt_token_ids: list[int]
    choices: list[Choice]

    def chat_completion(self) -> ChatCompletion:
        """The response of a request that is not streamed."""
        return ChatCompletion.model_validate(
            {
                **self._header("chat.completion"),
                "choices": [choice.model_dump() for choice in self.choices],
                "usage": self._usage(),
            }
        )

    def chunks(self, *, include_usage: bool) -> Iterator[ChatCompletionChunk]:
        """The response of a streamed request.

        A Tinker server answers with whole samples, so a choice arrives in two chunks: the message,
        then how it ended with its exact tokens.

        Args:
            include_usage: Whether a last chunk without choices says how many tokens were used.
        """
        header = self._header("chat.completion.chunk")
        for choice in self.choices:
            for chunk in _choice_chunks(choice):
                yield ChatCompletionChunk.model_validate({**header, "choices": [chunk]})
        if include_usage:
            usage = self._usage()
            yield ChatCompletionChunk.model_validate({**header, "choices": [], "usage": usage})

    def _header(self, kind: str) -> _Json:
        identity = f"chatcmpl-{uuid.uuid4().hex}"
        return {"id": identity, "created": int(time.time()), "model": self.model, "object": kind}

    def _usage(self) -> _Json:
        sampled = sum(len(_token_ids(choice)) for choice in self.choices)
        prompt = len(self.prompt_token_ids)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": sampled,
            "total_tokens": prompt + sampled,
        }


def sampling_params(
    request: ChatCompletionRequest, template: ChatTemplate
) -> tinker.SamplingParams:
    """How to sample for a request.

    Args:
        request: The request.
        template: Knows the tokens that end a turn.

    Returns:
        Parameters whose ``stop`` is never left to the server: token ids, or the texts of the same
        tokens where stop strings are wanted too, since the wire takes one kind at a time.
    """
    ends = template.end_of_turn_ids
    stop: list[str] | list[int] = list(ends)
    if request.stop:
        stop = [*request.stop, *(template.token_text(token_id) for token_id in ends)]
    return tinker.SamplingParams(
        max_tokens=request.token_limit,
        seed=request.seed,
        stop=stop,
        temperature=1.0 if request.temperature is None else request.temperature,
        top_k=request.top_k or -1,
        top_p=1.0 if request.top_p is None else request.top_p,
    )


def choice_from_sample(
    index: int,
    sample: tinker.SampledSequence,
    prompt_token_ids: list[int],
    request: ChatCompletionRequest,
    template: ChatTemplate,
) -> Choice:
    """Turn one sample into a choice.

    Args:
        index: The choice's place in the response.
        sample: Sampled tokens with their logprobs.
        prompt_token_ids: The prompt they were sampled for.
        request: Says the stop strings and the tools.
        template: Decodes, and parses tool calls.

    Returns:
        The choice, with its exact tokens.

    Raises:
        EngineError: The server left out logprobs.
    """
    if sample.logprobs is None or len(sample.logprobs) != len(sample.tokens):
        raise EngineError("the Tinker server returned a sample without a logprob for each token")
    turn = _read_turn(sample.tokens, sample.stop_reason, request.stop or [], template)
    tools = request.offered_tools
    parsed = ParsedText(turn.text)
    if tools and template.tool_call_format is not None:
        parsed = template.tool_call_format.parse(turn.text, tools)
    stopped_for_tools = bool(parsed.tool_calls) and turn.finish_reason == "stop"
    kept = len(turn.token_ids)
    content = _logprobs_content(
        turn.token_ids, sample.logprobs[:kept], (sample.topk_logprobs or [])[:kept], template
    )
    return Choice.model_validate(
        {
            "index": index,
            "finish_reason": "tool_calls" if stopped_for_tools else turn.finish_reason,
            "message": _message(parsed),
            "logprobs": {"content": content, "refusal": None},
            "prompt_token_ids": prompt_token_ids,
            "token_ids": turn.token_ids,
        }
    )


@dataclass(frozen=True, slots=True)
class _Turn:
    token_ids: list[int]
    text: str
    finish_reason: str


def _read_turn(
    token_ids: Sequence[int], stop_reason: str, stops: Sequence[str], template: ChatTemplate
) -> _Turn:
    """Find where a turn ends.

    A prefix of a sample is a sample of the same distribution, so cutting here what a server
    sampled past the first stop is exact, whatever the server's own notion of stopping.
    """
    ends = template.end_of_turn_ids
    end = next((i for i, token_id in enumerate(token_ids) if token_id in ends), None)
    visible = list(token_ids[:end])
    text = template.decode(visible)
    found = [position for stop in stops if (position := text.find(stop)) >= 0]
    if found:
        kept = _tokens_until_stop(visible, stops, template)
        return _Turn(visible[:kept], text[: min(found)], "stop")
    if end is not None:
        return _Turn([*visible, token_ids[end]], text, "stop")
    return _Turn(visible, text, stop_reason)


def _tokens_until_stop(token_ids: list[int], stops: Sequence[str], template: ChatTemplate) -> int:
    """The least number of tokens whose text contains a stop string, by bisection."""
    low, high = 1, len(token_ids)
    while low < high:
        middle = (low + high) // 2
        text = template.decode(token_ids[:middle])
        if any(stop in text for stop in stops):
            high = middle
        else:
            low = middle + 1
    return low


def _message(parsed: ParsedText) -> _Json:
    message: _Json = {"role": "assistant", "content": parsed.content}
    if parsed.tool_calls:
        message["content"] = parsed.content or None
        message["tool_calls"] = [
            {
                "id": f"call_{uuid.uuid4().hex[:24]}",
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in parsed.tool_calls
        ]
    return message


def _logprobs_content(
    token_ids: Sequence[int],
    logprobs: Sequence[float],
    top: Sequence[list[tuple[int, float]] | None],
    template: ChatTemplate,
) -> list[_Json]:
    top_at = [*top, *([None] * (len(token_ids) - len(top)))]
    return [
        {
            **_token_logprob(token_id, logprob, template),
            "top_logprobs": [
                _token_logprob(other, other_logprob, template)
                for other, other_logprob in (alternatives or [])
            ],
        }
        for token_id, logprob, alternatives in zip(token_ids, logprobs, top_at, strict=True)
    ]


def _token_logprob(token_id: int, logprob: float, template: ChatTemplate) -> _Json:
    text = template.token_text(token_id)
    # A token that holds part of a character decodes to U+FFFD, whose bytes are not the token's.
    own_bytes = None if "\ufffd" in text else list(text.encode())
    return {"token": text, "bytes": own_bytes, "logprob": logprob}


def _token_ids(choice: Choice) -> list[int]:
    return list((choice.model_extra or {})["token_ids"])


def _choice_chunks(choice: Choice) -> Iterator[_Json]:
    message = choice.message
    delta: _Json = {"role": "assistant", "content": message.content}
    if message.tool_calls:
        delta["tool_calls"] = [
            {"index": index, **call.model_dump()} for index, call in enumerate(message.tool_calls)
        ]
    logprobs = choice.logprobs.model_dump() if choice.logprobs is not None else None
    yield {
        "index": choice.index,
        "delta": delta,
        "logprobs": logprobs,
        "finish_reason": None,
    }
    yield {
        "index": choice.index,
        "delta": {},
        "finish_reason": choice.finish_reason,
        **(choice.model_extra or {}),
    }
