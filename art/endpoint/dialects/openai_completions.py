"""The OpenAI dialect of plain text: ``POST /v1/completions``, streamed or not.

Each choice carries the exact tokens behind it, as vLLM's do: ``prompt_token_ids``, ``token_ids``.
"""

import asyncio
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import Field, field_validator, model_validator

from art.chat.template import ChatTemplate
from art.endpoint.body import read_body
from art.endpoint.captured import record_completions
from art.endpoint.dependencies import EndpointDependency
from art.endpoint.dialect import Dialect
from art.endpoint.dialects.openai_chat_request import StreamOptions
from art.endpoint.dialects.openai_tokens import token_name, usage
from art.endpoint.dialects.openai_tools import ResponseFormat, format_rule
from art.endpoint.errors import RequestError, openai_error
from art.endpoint.events import DONE, server_sent_event
from art.endpoint.fields import Count, Neutral, Whole
from art.endpoint.sampling import Sample, sample
from art.endpoint.sampling_fields import VLLM_NEUTRAL, VLLM_NO_EFFECT, NumChoices, SamplingFields
from art.endpoint.served_models import ServedModel
from art.endpoint.state import Endpoint
from art.endpoint.streams import stream
from art.endpoint.types import SamplingOptions, TopLogprobs

router = APIRouter(prefix="/v1/completions")
DIALECT = Dialect(router)

# The OpenAI API's.
_DEFAULT_MAX_TOKENS = 16
_MAX_CHOICES = 128
_MAX_LOGPROBS = 20

_Json = dict[str, object]


class CompletionRequest(SamplingFields):
    """The body of ``POST /v1/completions``; a prompt is a text, token ids, or a list of either."""

    NEUTRAL: ClassVar[Neutral] = {**VLLM_NEUTRAL, "suffix": ("",), "prompt_embeds": ()}
    NO_EFFECT = VLLM_NO_EFFECT | {"user", "return_token_ids"}

    model: str
    prompt: Any
    n: NumChoices | None = None
    max_tokens: Count | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Whole, Field(ge=0, le=_MAX_LOGPROBS)] | None = None
    response_format: ResponseFormat | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    return_tokens_as_token_ids: bool | None = None

    @field_validator("prompt")
    @classmethod
    def _check_prompt(cls, prompt: Any) -> list[str | list[int]]:
        if isinstance(prompt, str) or _is_token_ids(prompt):
            return [prompt]
        prompts = prompt if isinstance(prompt, list) else []
        if not prompts or not all(isinstance(p, str) or _is_token_ids(p) for p in prompts):
            raise ValueError("prompt must be a text, a list of token ids, or a list of either")
        return [*prompts]

    @model_validator(mode="after")
    def _check_combinations(self) -> "CompletionRequest":
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream to be true")
        if self.echo and self.logprobs is not None:
            raise ValueError("echo cannot be had with logprobs: prompts have none here")
        if len(self.prompt) * (self.n or 1) > _MAX_CHOICES:
            raise ValueError(f"prompts times n are over {_MAX_CHOICES} choices")
        return self

    def sampling_options(self) -> SamplingOptions:
        """The sampling options of each prompt."""
        max_tokens = _DEFAULT_MAX_TOKENS if self.max_tokens is None else self.max_tokens
        rule = format_rule(self.response_format) or self.structured_rule()
        grammar = None if rule is None else f"start: {rule}"
        return self.options(max_tokens, self.logprobs or 0, num_samples=self.n, grammar=grammar)


def _is_token_ids(prompt: object) -> bool:
    return (
        isinstance(prompt, list)
        and bool(prompt)
        and all(type(token_id) is int and 0 <= token_id < 2**31 for token_id in prompt)
    )


@router.post("", response_model=None)
async def _create_completion(
    request: Request, endpoint: EndpointDependency
) -> JSONResponse | StreamingResponse:
    body = await read_body(request, CompletionRequest, strict=endpoint.strict)
    model = endpoint.find_model(body.model)
    options = body.sampling_options()
    # In a thread, as `prompt_of` does it.
    prompts = await asyncio.to_thread(
        lambda: [_prompt_token_ids(prompt, options, endpoint) for prompt in body.prompt]
    )
    sampling = _sample_all(model, prompts, options, body, endpoint)
    if body.stream:
        return await stream(
            sampling,
            lambda choices: _Completion(body, choices, endpoint.chat_template).events(),
            lambda error: [server_sent_event(openai_error(error))],
        )
    completion = _Completion(body, await sampling, endpoint.chat_template)
    return JSONResponse(completion.response())


def _prompt_token_ids(
    prompt: str | list[int], options: SamplingOptions, endpoint: Endpoint
) -> list[int]:
    template = endpoint.chat_template
    token_ids = template.text_token_ids(prompt) if isinstance(prompt, str) else prompt
    if not token_ids:
        raise RequestError(400, "prompt is empty; give at least one token", param="prompt")
    endpoint.check_length(token_ids, options.max_tokens, "prompt")
    return token_ids


@dataclass(frozen=True, slots=True)
class _Choice:
    prompt: str | list[int]
    prompt_token_ids: list[int]
    sample: Sample


async def _sample_all(
    model: ServedModel,
    prompts: list[list[int]],
    options: SamplingOptions,
    body: CompletionRequest,
    endpoint: Endpoint,
) -> list[_Choice]:
    """Sample all prompts at once; if one fails, so does the request."""
    tasks = [
        asyncio.ensure_future(sample(model, prompt, options, body.stops(), endpoint))
        for prompt in prompts
    ]
    try:
        samples = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    for prompt, own in zip(prompts, samples, strict=True):
        record_completions(prompt, own, endpoint.chat_template)
    return [
        _Choice(text, prompt, each)
        for text, prompt, own in zip(body.prompt, prompts, samples, strict=True)
        for each in own
    ]


@dataclass(frozen=True, slots=True)
class _Completion:
    """A request with its choices, those of the first prompt first."""

    body: CompletionRequest
    choices: list[_Choice]
    template: ChatTemplate

    def response(self) -> _Json:
        """The response of a request that is not streamed."""
        choices = [self._choice(index, choice) for index, choice in enumerate(self.choices)]
        return {**self._header(), "choices": choices, "usage": self._usage()}

    def events(self) -> Iterator[str]:
        """The response of a streamed request: an event for each choice."""
        header = self._header()
        for index, choice in enumerate(self.choices):
            yield server_sent_event({**header, "choices": [self._choice(index, choice)]})
        options = self.body.stream_options
        if options is not None and options.include_usage:
            yield server_sent_event({**header, "choices": [], "usage": self._usage()})
        yield DONE

    def _header(self) -> _Json:
        return {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": self.body.model,
            "object": "text_completion",
        }

    def _choice(self, index: int, choice: _Choice) -> _Json:
        sampled = choice.sample
        return {
            "index": index,
            "text": (self._prompt_text(choice) if self.body.echo else "") + sampled.text,
            "finish_reason": sampled.stop_reason,
            "stop_reason": sampled.matched,
            "logprobs": None if self.body.logprobs is None else self._logprobs(sampled),
            "prompt_token_ids": choice.prompt_token_ids,
            "token_ids": sampled.token_ids,
        }

    def _prompt_text(self, choice: _Choice) -> str:
        if isinstance(choice.prompt, str):
            return choice.prompt
        return self.template.decode(choice.prompt)

    def _logprobs(self, sampled: Sample) -> _Json:
        tokens = [self.template.token_text(token_id) for token_id in sampled.token_ids]
        offsets = [0]
        for token in tokens:
            offsets.append(offsets[-1] + len(token))
        return {
            "tokens": [self._name(token_id) for token_id in sampled.token_ids],
            "token_logprobs": sampled.logprobs,
            "top_logprobs": [self._alternatives(each) for each in sampled.top_logprobs],
            "text_offset": offsets[:-1],
        }

    def _alternatives(self, alternatives: TopLogprobs) -> dict[str, float] | None:
        if alternatives is None:
            return None
        return {self._name(token_id): logprob for token_id, logprob in alternatives}

    def _name(self, token_id: int) -> str:
        as_id = self.body.return_tokens_as_token_ids is True
        return token_name(token_id, self.template, as_id=as_id)

    def _usage(self) -> _Json:
        # Each prompt once, however many choices it has.
        prompts = [choice.prompt_token_ids for choice in self.choices[:: self.body.n or 1]]
        prompt = [token_id for each in prompts for token_id in each]
        return usage(prompt, [choice.sample for choice in self.choices])
