"""vLLM's dialect of tokens: ``POST /inference/v1/generate``, token ids in and token ids out.

The chat template takes no part but for the tokens that end a turn.
"""

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import Field, model_validator

from art._internal.validation import ShortList
from art.chat.template import ChatTemplate
from art.endpoint.body import read_body
from art.endpoint.captured import record_completions
from art.endpoint.dependencies import EndpointDependency
from art.endpoint.dialect import Dialect
from art.endpoint.dialects.openai_chat_request import StreamOptions
from art.endpoint.dialects.openai_tokens import token_logprobs, usage
from art.endpoint.errors import RequestError, error_type
from art.endpoint.events import DONE, server_sent_event
from art.endpoint.fields import Count, Neutral, RequestBody, TokenId, Whole
from art.endpoint.sampling import Sample, sample
from art.endpoint.sampling_fields import VLLM_NEUTRAL, NumChoices, SamplingFields
from art.endpoint.served_models import ServedModel
from art.endpoint.state import Endpoint
from art.endpoint.streams import stream
from art.endpoint.types import SamplingOptions

_MAX_LOGPROBS = 20
# What they say of the text does not matter to tokens, so any value is taken with those.
_OF_TEXT = ("skip_special_tokens", "spaces_between_special_tokens")

_Json = dict[str, object]


def vllm_error(error: RequestError) -> dict[str, object]:
    """Write an error in vLLM's shape, whose ``code`` is the HTTP status."""
    fields = {"message": error.message, "type": error_type(error.status)}
    return {"error": {**fields, "param": error.param, "code": error.status}}


router = APIRouter(prefix="/inference/v1/generate")
DIALECT = Dialect(router, vllm_error)


class VllmSamplingParams(SamplingFields):
    """vLLM's ``sampling_params``."""

    PLACE = "sampling_params."
    NEUTRAL: ClassVar[Neutral] = {
        **{field: values for field, values in VLLM_NEUTRAL.items() if field not in _OF_TEXT},
        "extra_args": ({},),
        "flat_logprobs": (False,),
        "logprob_token_ids": (),
        "prompt_logprob_start": (),
        "prompt_logprob_token_ids": (),
        "repetition_detection": (),
        "routed_experts_prompt_start": (0,),
        "trace_decode_token_ids": (),
        "watermarking": (False,),
    }
    NO_EFFECT = frozenset(
        {"detokenize", "output_kind", "skip_clone", "skip_reading_prefix_cache", "stream_interval"}
    )

    n: NumChoices | None = None
    max_tokens: Count | None = None
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool | None = None
    logprobs: Annotated[int, Whole, Field(ge=0, le=_MAX_LOGPROBS)] | None = None

    def sampling_options(self) -> SamplingOptions:
        """The sampling options; without ``max_tokens`` the limit is the rest of the context."""
        rule = self.structured_rule()
        grammar = None if rule is None else f"start: {rule}"
        return self.options(
            self.max_tokens, self.logprobs or 0, num_samples=self.n, grammar=grammar
        )


class GenerateRequest(RequestBody):
    """The body of ``POST /inference/v1/generate``."""

    NEUTRAL: ClassVar[Neutral] = {
        "content_parts": ([],),
        "ec_transfer_params": (),
        "features": (),
        "kv_transfer_params": (),
        "reasoning_ended": (True,),
    }
    NO_EFFECT = frozenset(
        {"cache_salt", "parse_context", "priority", "reasoning_parser_kwargs", "token_offsets"}
    )

    token_ids: Annotated[ShortList[TokenId], Field(min_length=1)]
    sampling_params: VllmSamplingParams
    model: str | None = None
    request_id: Annotated[str, Field(max_length=256)] | None = None
    return_token_ids: bool | None = None
    output_mode: Literal["tokens", "text"] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @model_validator(mode="after")
    def _check_text(self) -> "GenerateRequest":
        for field in _OF_TEXT if self.output_mode == "text" else ():
            if getattr(self.sampling_params, field) is False:
                raise ValueError(f"sampling_params.{field} cannot be false with output_mode text")
        return self


@router.post("", response_model=None)
async def _generate(
    request: Request, endpoint: EndpointDependency
) -> JSONResponse | StreamingResponse:
    body = await read_body(request, GenerateRequest, strict=endpoint.strict)
    params = body.sampling_params
    model = endpoint.models.latest if body.model is None else endpoint.find_model(body.model)
    options = params.sampling_options()
    endpoint.check_length(body.token_ids, options.max_tokens, "token_ids")
    sampling = _sample(model, body, endpoint)
    template = endpoint.chat_template
    if body.stream:
        return await stream(
            sampling,
            lambda samples: _Generation(body, model.name, samples, template).events(),
            lambda error: [server_sent_event(vllm_error(error)), DONE],
        )
    generation = _Generation(body, model.name, await sampling, template)
    return JSONResponse(generation.response())


async def _sample(model: ServedModel, body: GenerateRequest, endpoint: Endpoint) -> list[Sample]:
    params = body.sampling_params
    samples = await sample(
        model, body.token_ids, params.sampling_options(), params.stops(), endpoint
    )
    record_completions(body.token_ids, samples, endpoint.chat_template)
    return samples


@dataclass(frozen=True, slots=True)
class _Generation:
    """A request with its samples, one for each choice."""

    body: GenerateRequest
    model: str
    samples: list[Sample]
    template: ChatTemplate

    def response(self) -> _Json:
        """The response of a request that is not streamed."""
        return {
            **self._header(),
            **self._prompt(),
            "model": self.model,
            "created": int(time.time()),
            "choices": [self._choice(index, each) for index, each in enumerate(self.samples)],
            "usage": usage(self.body.token_ids, self.samples),
        }

    def events(self) -> Iterator[str]:
        """The response of a streamed request: an event for each choice."""
        header, prompt = self._header(), self._prompt()
        for index, each in enumerate(self.samples):
            choices = [self._choice(index, each)]
            yield server_sent_event({**header, **prompt, "choices": choices})
            prompt = {}
        options = self.body.stream_options
        if options is not None and options.include_usage:
            numbers = usage(self.body.token_ids, self.samples)
            yield server_sent_event({**header, "choices": [], "usage": numbers})
        yield DONE

    def _header(self) -> _Json:
        return {
            "request_id": self.body.request_id or uuid.uuid4().hex,
            "output_mode": self.body.output_mode or "tokens",
        }

    def _prompt(self) -> _Json:
        return {"prompt_token_ids": self.body.token_ids} if self.body.return_token_ids else {}

    def _choice(self, index: int, sampled: Sample) -> _Json:
        text = {"text": sampled.text} if self.body.output_mode == "text" else {}
        asked = self.body.sampling_params.logprobs is not None
        return {
            "index": index,
            **text,
            "finish_reason": sampled.stop_reason,
            "stop_reason": sampled.matched,
            "token_ids": sampled.token_ids,
            "logprobs": {"content": self._logprobs(sampled)} if asked else None,
        }

    def _logprobs(self, sampled: Sample) -> list[dict[str, object]]:
        if self.body.output_mode == "text":
            return token_logprobs(sampled, self.template)
        return [
            {
                "token_id": token_id,
                "logprob": logprob,
                "top_logprobs": [
                    {"token_id": other, "logprob": other_logprob}
                    for other, other_logprob in (alternatives or [])
                ],
            }
            for token_id, logprob, alternatives in zip(
                sampled.token_ids, sampled.logprobs, sampled.top_logprobs, strict=True
            )
        ]
