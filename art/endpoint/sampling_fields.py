"""The sampling settings that the OpenAI dialects and vLLM's share."""

from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field, field_validator

from art._internal.validation import ShortList
from art.endpoint.constraints import JSON_OBJECT_RULE, choice_rule, json_schema_rule
from art.endpoint.fields import JsonObject, Neutral, Number, RequestBody, TokenId, Whole
from art.endpoint.sampling import Stops
from art.endpoint.types import SamplingOptions
from art.formats.sampling_controls import SamplingControls

_MAX_CHOICES = 128
_MAX_STOPS = 16
_MAX_BIASES = 1024

Seed = Annotated[int, Whole, Field(ge=-(2**63), lt=2**63)]
Temperature = Annotated[Number, Field(ge=0)]
TopP = Annotated[float, Field(gt=0, le=1)]
TopK = Annotated[int, Whole, Field(ge=-1, lt=2**31)]
NumChoices = Annotated[int, Whole, Field(ge=1, le=_MAX_CHOICES)]


class StructuredOutputs(RequestBody):
    """vLLM's ``structured_outputs``: one way to constrain a text."""

    PLACE = "structured_outputs."
    NEUTRAL: ClassVar[Neutral] = {"grammar": (), "structural_tag": (), "regex": ()}
    NO_EFFECT = frozenset({"disable_any_whitespace"})

    json_: JsonObject | None = Field(default=None, alias="json")
    json_object: bool | None = None
    choice: Annotated[ShortList[str], Field(min_length=1, max_length=1024)] | None = None

    def rule(self) -> str | None:
        """The Lark text that a sample must match; ``None`` is any text."""
        if self.json_ is not None:
            return json_schema_rule(self.json_)
        if self.json_object:
            return JSON_OBJECT_RULE
        return choice_rule(self.choice) if self.choice else None


class SamplingFields(RequestBody):
    """The fields of drawing tokens, and of ending a sample."""

    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[Number, Field(gt=0)] | None = None
    logit_bias: Annotated[dict[str, Number], Field(max_length=_MAX_BIASES)] | None = None
    seed: Seed | None = None
    stop: str | ShortList[str] | None = None
    stop_token_ids: Annotated[ShortList[TokenId], Field(max_length=_MAX_BIASES)] | None = None
    structured_outputs: StructuredOutputs | None = None

    @field_validator("stop")
    @classmethod
    def _check_stop(cls, stop: str | list[str] | None) -> list[str] | None:
        return checked_stops([stop] if isinstance(stop, str) else stop)

    @field_validator("logit_bias")
    @classmethod
    def _check_logit_bias(cls, biases: dict[str, float] | None) -> dict[str, float] | None:
        for token_id, bias in (biases or {}).items():
            if not (token_id.isascii() and token_id.isdigit() and len(token_id) < 10):
                raise ValueError(f"{token_id!r:.60} is no token id")
            if not -100 <= bias <= 100:
                raise ValueError(f"the bias of {token_id} is {bias}; it must be within ±100")
        return biases

    def stops(self) -> Stops:
        """The stops of a sample."""
        # A validator has made a list of it.
        return Stops([*(self.stop or [])], self.stop_token_ids or [])

    def structured_rule(self) -> str | None:
        """The Lark text of ``structured_outputs``; ``None`` is any text."""
        return None if self.structured_outputs is None else self.structured_outputs.rule()

    def options(
        self,
        max_tokens: int | None,
        top_logprobs: int,
        *,
        num_samples: int | None = None,
        grammar: str | None = None,
    ) -> SamplingOptions:
        """The sampling options, without ``stop``.

        Args:
            max_tokens: Limit on the tokens of a sample; ``None`` is the rest of the context.
            top_logprobs: Number of alternatives to return for each token.
            num_samples: Number of samples; ``None`` is one.
            grammar: A grammar that a sample follows.
        """
        biases = self.logit_bias or {}
        return SamplingOptions(
            num_samples=1 if num_samples is None else num_samples,
            max_tokens=max_tokens,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=self.top_k or -1,
            seed=self.seed,
            top_logprobs=top_logprobs,
            controls=SamplingControls(
                min_p=self.min_p or 0.0,
                logit_bias=tuple((int(token_id), bias) for token_id, bias in biases.items()),
                frequency_penalty=self.frequency_penalty or 0.0,
                presence_penalty=self.presence_penalty or 0.0,
                repetition_penalty=(
                    1.0 if self.repetition_penalty is None else self.repetition_penalty
                ),
                grammar=grammar,
            ),
        )


def checked_stops(stops: Sequence[str] | None) -> list[str] | None:
    """Check stop texts.

    Raises:
        ValueError: One is empty, or there are too many.
    """
    if stops and (len(stops) > _MAX_STOPS or not all(stops)):
        raise ValueError(f"give at most {_MAX_STOPS} stop strings, none of them empty")
    return [*stops] if stops else None


# What vLLM's clients send beside the OpenAI API's fields, and asks for what happens anyway.
VLLM_NEUTRAL: Neutral = {
    "add_generation_prompt": (True,),
    "add_special_tokens": (),
    "allowed_token_ids": (),
    "bad_words": ([],),
    "best_of": (1,),
    "chat_template": (),
    "continue_final_message": (False,),
    "documents": ([],),
    "ignore_eos": (False,),
    "include_stop_str_in_output": (False,),
    "length_penalty": (1,),
    "logits_processors": ([],),
    "min_tokens": (0,),
    "mm_processor_kwargs": ({},),
    "prompt_logprobs": (),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "thinking_token_budget": (),
    "truncate_prompt_tokens": (),
    "use_beam_search": (False,),
}
VLLM_NO_EFFECT = frozenset({"cache_salt", "priority", "request_id", "session_id"})
