"""Tools, their choice and output formats, as chat completions of the OpenAI API have them."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from art._internal.validation import ShortList
from art.endpoint.constraints import AUTO, JSON_OBJECT_RULE, ToolSelection, json_schema_rule
from art.endpoint.fields import JsonObject, RequestBody

ToolName = Annotated[str, Field(min_length=1, max_length=256)]


class FunctionTool(BaseModel):
    """A tool's name and parameters; kept whole, since the chat template shows all of it."""

    model_config = ConfigDict(extra="allow")

    name: ToolName
    parameters: JsonObject | None = None


class ToolParam(BaseModel):
    """A tool on offer."""

    model_config = ConfigDict(extra="allow")

    type: Literal["function"]
    function: FunctionTool


class FunctionName(RequestBody):
    """The name of a tool."""

    PLACE = "tool_choice.function."

    name: ToolName


class NamedTool(RequestBody):
    """The one tool that must be called."""

    PLACE = "tool_choice."

    type: Literal["function"]
    function: FunctionName


class AllowedTools(RequestBody):
    """Some of the tools, one of which may or must be called."""

    PLACE = "tool_choice.allowed_tools."

    mode: Literal["auto", "required"]
    tools: Annotated[ShortList[NamedTool], Field(min_length=1)]


class AllowedToolsChoice(RequestBody):
    """The choice among some of the tools."""

    PLACE = "tool_choice."

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


ToolChoice = (
    Literal["auto", "none", "required"]
    | Annotated[NamedTool | AllowedToolsChoice, Field(discriminator="type")]
)


class JsonSchema(RequestBody):
    """A schema that the content must follow. It is followed exactly, whatever ``strict`` says."""

    PLACE = "response_format.json_schema."
    NO_EFFECT = frozenset({"name", "description", "strict"})

    schema_: JsonObject | None = Field(default=None, alias="schema")


class TextFormat(RequestBody):
    """Any text."""

    PLACE = "response_format."

    type: Literal["text"]


class JsonObjectFormat(RequestBody):
    """Any JSON object."""

    PLACE = "response_format."

    type: Literal["json_object"]


class JsonSchemaFormat(RequestBody):
    """JSON of a schema."""

    PLACE = "response_format."

    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[
    TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")
]


def format_rule(response_format: ResponseFormat | None) -> str | None:
    """The Lark text of a response's content; ``None`` is any text."""
    if isinstance(response_format, JsonSchemaFormat):
        schema = response_format.json_schema.schema_
        return JSON_OBJECT_RULE if schema is None else json_schema_rule(schema)
    return JSON_OBJECT_RULE if isinstance(response_format, JsonObjectFormat) else None


def tool_selection(choice: ToolChoice | None) -> ToolSelection:
    """A ``tool_choice`` in no dialect."""
    if choice is None:
        return AUTO
    if isinstance(choice, NamedTool):
        return ToolSelection("required", name=choice.function.name)
    if isinstance(choice, AllowedToolsChoice):
        names = frozenset(tool.function.name for tool in choice.allowed_tools.tools)
        return ToolSelection(choice.allowed_tools.mode, allowed=names)
    return ToolSelection(choice)
