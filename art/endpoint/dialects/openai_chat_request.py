"""The body of a chat completion request in the OpenAI dialect, checked.

A field that changes what is sampled is either honoured or refused by name, except at the value that
asks for what happens anyway. Fields that only label a request have no effect.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from art._internal.validation import ShortList
from art.endpoint.constraints import choose_tools
from art.endpoint.conversation import normalized
from art.endpoint.dialects.openai_tools import (
    ResponseFormat,
    ToolChoice,
    ToolParam,
    format_rule,
    tool_selection,
)
from art.endpoint.fields import Count, JsonObject, Neutral, RequestBody, Whole
from art.endpoint.sampling_fields import VLLM_NEUTRAL, VLLM_NO_EFFECT, NumChoices, SamplingFields
from art.endpoint.turns import TurnRequest

_MAX_TOP_LOGPROBS = 20

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class StreamOptions(RequestBody):
    """Options of a streamed response."""

    PLACE = "stream_options."
    NEUTRAL: ClassVar[Neutral] = {"continuous_usage_stats": (False,)}
    NO_EFFECT = frozenset({"include_obfuscation"})

    include_usage: bool | None = None


class ChatCompletionRequest(SamplingFields):
    """The body of ``POST /v1/chat/completions``.

    Attributes are those of the OpenAI API, and some more that other open servers take as well (send
    them with the client's ``extra_body``).
    """

    NEUTRAL: ClassVar[Neutral] = {
        **VLLM_NEUTRAL,
        "audio": (),
        "echo": (False,),
        "function_call": ("auto", "none"),
        "functions": ([],),
        "modalities": (["text"],),
        "moderation": (),
        "verbosity": ("medium",),
        "web_search_options": (),
    }
    NO_EFFECT = VLLM_NO_EFFECT | {
        "metadata",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }

    model: str
    messages: Annotated[ShortList[JsonObject], Field(min_length=1)]
    n: NumChoices | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Whole, Field(ge=0, le=_MAX_TOP_LOGPROBS)] | None = None
    tools: ShortList[ToolParam] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: Effort | None = None
    include_reasoning: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    chat_template_kwargs: JsonObject | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None

    @field_validator("messages")
    @classmethod
    def _normalize_messages(cls, messages: list[JsonObject]) -> list[JsonObject]:
        return [normalized(message, f"messages[{index}]") for index, message in enumerate(messages)]

    @model_validator(mode="after")
    def _check_combinations(self) -> "ChatCompletionRequest":
        both = self.max_tokens is not None and self.max_completion_tokens is not None
        if both and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens differ; give one of them")
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs to be true")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream to be true")
        if self.structured_outputs is not None and format_rule(self.response_format) is not None:
            raise ValueError("give response_format or structured_outputs, not both")
        return self

    def turn_request(self) -> TurnRequest:
        """This request in no dialect.

        Raises:
            RequestError: The choice of tools makes no sense (400).
        """
        max_tokens = self.max_completion_tokens
        rule = format_rule(self.response_format) or self.structured_rule()
        tools, constraint = choose_tools(
            [tool.model_dump(exclude_unset=True) for tool in self.tools or []],
            tool_selection(self.tool_choice),
            rule,
        )
        return TurnRequest(
            model=self.model,
            messages=self.messages,
            tools=tools,
            constraint=constraint,
            parallel_tool_calls=self.parallel_tool_calls is not False,
            template_kwargs=effort_kwargs(self.reasoning_effort, self.chat_template_kwargs),
            stops=self.stops(),
            options=self.options(
                self.max_tokens if max_tokens is None else max_tokens,
                self.top_logprobs or 0,
                num_samples=self.n,
            ),
        )


def effort_kwargs(effort: str | None, template_kwargs: JsonObject | None) -> dict[str, Any]:
    """Variables for the chat template that ask for more or less thinking.

    Templates that know no such variable ignore it.

    Args:
        effort: As in ``reasoning_effort``; ``"none"`` turns thinking off.
        template_kwargs: Other variables; they override these.
    """
    if effort is None:
        return {**(template_kwargs or {})}
    thinking = {"enable_thinking": False} if effort == "none" else {}
    return {"reasoning_effort": effort, **thinking, **(template_kwargs or {})}
