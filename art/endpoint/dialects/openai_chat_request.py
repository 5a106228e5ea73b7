"""The body of a chat completion request in the OpenAI dialect, checked.

A field that changes what is sampled is either honoured or refused with a clear error. Fields that
only label a request (``user``, ``metadata``) are accepted.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from art._internal.validation import ShortList, refuse_unknown_fields
from art.endpoint.turns import TurnRequest
from art.endpoint.types import SamplingOptions

_ROLES = {"system", "developer", "user", "assistant", "tool"}

_MAX_CHOICES = 128
_MAX_TOP_LOGPROBS = 20
_MAX_STOPS = 16


class _StrictModel(BaseModel):
    """An object without unknown fields, whose values have exactly their types."""

    model_config = ConfigDict(extra="ignore", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_fields(cls, fields: object) -> object:
        refuse_unknown_fields(fields, [*cls.model_fields])
        return fields


class StreamOptions(_StrictModel):
    """Options of a streamed response."""

    include_usage: bool = False


class FunctionTool(BaseModel):
    """A tool's name and parameters; kept whole, since the chat template shows all of it."""

    model_config = ConfigDict(extra="allow")

    name: str = Field(min_length=1)
    parameters: dict[str, Any] | None = None


class ToolParam(BaseModel):
    """A tool on offer."""

    model_config = ConfigDict(extra="allow")

    type: Literal["function"]
    function: FunctionTool


class ChatCompletionRequest(_StrictModel):
    """The body of ``POST /v1/chat/completions``.

    Attributes are those of the OpenAI API, and two more that other open servers take as well:
    ``top_k`` and ``chat_template_kwargs`` (send them with the client's ``extra_body``).
    """

    model: str
    messages: Annotated[ShortList[dict[str, Any]], Field(min_length=1)]
    n: Annotated[int, Field(ge=1, le=_MAX_CHOICES)] | None = None
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    max_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    stop: str | ShortList[str] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=_MAX_TOP_LOGPROBS)] | None = None
    tools: ShortList[ToolParam] | None = None
    tool_choice: Literal["auto", "none"] | None = None
    parallel_tool_calls: Literal[True] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    # Only the default is implemented, so any other value is refused.
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None

    # Labels.
    user: str | None = None
    metadata: dict[str, Any] | None = None

    @field_validator("messages")
    @classmethod
    def _normalize_messages(cls, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [_normalized(message, index) for index, message in enumerate(messages)]

    @field_validator("stop")
    @classmethod
    def _check_stop(cls, stop: str | list[str] | None) -> list[str] | None:
        stops = [stop] if isinstance(stop, str) else stop
        if stops and (len(stops) > _MAX_STOPS or not all(stops)):
            raise ValueError(f"give at most {_MAX_STOPS} stop strings, none of them empty")
        return stops or None

    @field_validator("metadata")
    @classmethod
    def _check_metadata(cls, metadata: dict[str, Any] | None) -> dict[str, Any] | None:
        # Not dict[str, str], which would make a record of each wrong value.
        if not all(isinstance(value, str) for value in (metadata or {}).values()):
            raise ValueError("the values of metadata must be text")
        return metadata

    @model_validator(mode="after")
    def _check_combinations(self) -> "ChatCompletionRequest":
        both = self.max_tokens is not None and self.max_completion_tokens is not None
        if both and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens differ; give one of them")
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs to be true")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream to be true")
        return self

    def turn_request(self) -> TurnRequest:
        """This request in no dialect."""
        max_tokens = self.max_completion_tokens
        return TurnRequest(
            model=self.model,
            messages=self.messages,
            tools=self._offered_tools(),
            template_kwargs=self.chat_template_kwargs,
            stop=self.stop or [],
            options=SamplingOptions(
                num_samples=1 if self.n is None else self.n,
                max_tokens=self.max_tokens if max_tokens is None else max_tokens,
                temperature=1.0 if self.temperature is None else self.temperature,
                top_p=1.0 if self.top_p is None else self.top_p,
                top_k=self.top_k or -1,
                seed=self.seed,
                top_logprobs=self.top_logprobs or 0,
            ),
        )

    def _offered_tools(self) -> list[dict[str, Any]]:
        if self.tool_choice == "none":
            return []
        return [tool.model_dump(exclude_unset=True) for tool in self.tools or []]


def _normalized(message: dict[str, Any], index: int) -> dict[str, Any]:
    """Convert a message to the roles and the plain text that chat templates know."""
    role = message.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise ValueError(f"messages[{index}].role is {role!r:.60}; use one of {sorted(_ROLES)}")
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(_part_text(part, index) for part in content)
    if content is not None and not isinstance(content, str):
        raise ValueError(f"messages[{index}].content must be text or a list of text parts")
    calls = message.get("tool_calls")
    if content is None and not (role == "assistant" and calls):
        raise ValueError(f"messages[{index}].content is missing")
    if calls is not None:
        _check_tool_calls(calls, index)
    # The OpenAI API's newer name for a system message, which templates do not know.
    return {**message, "role": "system" if role == "developer" else role, "content": content}


def _part_text(part: Any, index: int) -> str:
    text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
    if not isinstance(text, str):
        raise ValueError(f"messages[{index}].content has a part that is not text; send text only")
    return text


def _check_tool_calls(calls: Any, index: int) -> None:
    for call in calls if isinstance(calls, list) else [None]:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise ValueError(f"messages[{index}].tool_calls must be a list of function calls")
        if not isinstance(function.get("arguments", ""), str | dict):
            raise ValueError(f"messages[{index}].tool_calls has arguments that are not JSON text")
