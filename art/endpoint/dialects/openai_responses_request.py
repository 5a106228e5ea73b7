"""The body of a request of the OpenAI API's responses, checked.

Nothing is stored here: a request brings its whole conversation, and a field that refers to an
earlier response is refused.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from art._internal.validation import ShortList
from art.endpoint.constraints import (
    AUTO,
    JSON_OBJECT_RULE,
    ToolSelection,
    choose_tools,
    json_schema_rule,
)
from art.endpoint.dialects.openai_chat_request import Effort, effort_kwargs
from art.endpoint.dialects.openai_responses_items import conversation
from art.endpoint.dialects.openai_tools import ToolName
from art.endpoint.fields import Count, JsonObject, Neutral, RequestBody, Whole
from art.endpoint.sampling_fields import VLLM_NEUTRAL, VLLM_NO_EFFECT, SamplingFields
from art.endpoint.turns import TurnRequest

_MAX_TOP_LOGPROBS = 20

WITH_LOGPROBS = "message.output_text.logprobs"


class FlatTool(BaseModel):
    """A tool on offer; it has no ``function`` around it, unlike those of chat completions."""

    model_config = ConfigDict(extra="allow")

    type: Literal["function"]
    name: ToolName
    parameters: JsonObject | None = None
    description: str | None = None

    def chat_tool(self) -> dict[str, Any]:
        """The tool in the form of chat completions."""
        function = self.model_dump(exclude_unset=True, exclude_none=True, exclude={"type"})
        return {"type": "function", "function": function}


class NamedTool(RequestBody):
    """The one tool that must be called."""

    PLACE = "tool_choice."

    type: Literal["function"]
    name: ToolName


class AllowedTools(RequestBody):
    """Some of the tools, one of which may or must be called."""

    PLACE = "tool_choice."

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[ShortList[NamedTool], Field(min_length=1)]


ToolChoice = (
    Literal["auto", "none", "required"]
    | Annotated[NamedTool | AllowedTools, Field(discriminator="type")]
)


class PlainFormat(RequestBody):
    """Any text, or any JSON object."""

    PLACE = "text.format."

    type: Literal["text", "json_object"]


class JsonSchemaFormat(RequestBody):
    """JSON of a schema, which is followed exactly, whatever ``strict`` says."""

    PLACE = "text.format."
    NO_EFFECT = frozenset({"name", "description", "strict"})

    type: Literal["json_schema"]
    schema_: JsonObject = Field(alias="schema")


class TextConfig(RequestBody):
    """The form of the text."""

    PLACE = "text."
    NEUTRAL: ClassVar[Neutral] = {"verbosity": ("medium",)}

    format: Annotated[PlainFormat | JsonSchemaFormat, Field(discriminator="type")] | None = None

    def rule(self) -> str | None:
        """The Lark text of the content; ``None`` is any text."""
        if isinstance(self.format, JsonSchemaFormat):
            return json_schema_rule(self.format.schema_)
        if self.format is not None and self.format.type == "json_object":
            return JSON_OBJECT_RULE
        return None


class Reasoning(RequestBody):
    """The amount of thinking."""

    PLACE = "reasoning."
    NO_EFFECT = frozenset({"context", "generate_summary", "mode", "summary"})

    effort: Effort | None = None


class ResponsesRequest(SamplingFields):
    """The body of ``POST /v1/responses``.

    Attributes are those of the OpenAI API, and the sampling settings that chat completions take.
    """

    NEUTRAL: ClassVar[Neutral] = {
        **VLLM_NEUTRAL,
        "access_programs": (),
        "background": (False,),
        "background_options": (),
        "context_management": ([],),
        "conversation": (),
        "image": (),
        "moderation": (),
        "previous_response_id": (),
        "prompt": (),
        "truncation": ("disabled",),
    }
    NO_EFFECT = VLLM_NO_EFFECT | {
        "max_tool_calls",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "stream_options",
        "user",
    }

    model: str
    input: Any
    instructions: str | None = None
    max_output_tokens: Count | None = None
    tools: ShortList[FlatTool] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    include: ShortList[str] | None = None
    top_logprobs: Annotated[int, Whole, Field(ge=0, le=_MAX_TOP_LOGPROBS)] | None = None
    metadata: JsonObject | None = None
    stream: bool | None = None
    chat_template_kwargs: JsonObject | None = None
    return_token_ids: bool | None = None

    @field_validator("input")
    @classmethod
    def _read_input(cls, value: object) -> list[JsonObject]:
        return conversation(value)

    @model_validator(mode="after")
    def _check_combinations(self) -> "ResponsesRequest":
        if self.structured_outputs is not None and self.text is not None and self.text.format:
            raise ValueError("give text.format or structured_outputs, not both")
        return self

    def turn_request(self) -> TurnRequest:
        """This request in no dialect.

        Raises:
            RequestError: The choice of tools makes no sense (400).
        """
        rule = self.text.rule() if self.text is not None else None
        tools, constraint = choose_tools(
            [tool.chat_tool() for tool in self.tools or []],
            self._selection(),
            rule or self.structured_rule(),
        )
        system = [] if not self.instructions else [_system(self.instructions)]
        effort = self.reasoning.effort if self.reasoning is not None else None
        return TurnRequest(
            model=self.model,
            messages=[*system, *self.input],
            messages_field="input",
            tools=tools,
            constraint=constraint,
            parallel_tool_calls=self.parallel_tool_calls is not False,
            template_kwargs=effort_kwargs(effort, self.chat_template_kwargs),
            stops=self.stops(),
            options=self.options(self.max_output_tokens, self.top_logprobs or 0),
        )

    def _selection(self) -> ToolSelection:
        choice = self.tool_choice
        if choice is None:
            return AUTO
        if isinstance(choice, NamedTool):
            return ToolSelection("required", name=choice.name)
        if isinstance(choice, AllowedTools):
            names = frozenset(tool.name for tool in choice.tools)
            return ToolSelection(choice.mode, allowed=names)
        return ToolSelection(choice)


def _system(text: str) -> JsonObject:
    return {"role": "system", "content": text}
