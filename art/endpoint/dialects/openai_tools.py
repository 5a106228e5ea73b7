"""Tools, their choice and output formats, as chat completions of the OpenAI API have them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from art._internal.validation import ShortList
from art.endpoint.constraints import JSON_OBJECT_RULE, Constraint, json_schema_rule
from art.endpoint.errors import RequestError
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


def offered_tools(
    tools: list[dict[str, Any]], choice: ToolChoice | None, rule: str | None
) -> tuple[list[dict[str, Any]], Constraint]:
    """Resolve a choice of tools.

    Args:
        tools: The tools, in the form of chat completions.
        choice: The choice among them; ``None`` is ``"auto"``.
        rule: The Lark text of the content; ``None`` is any text.

    Returns:
        The tools to offer, and what the turn must be.

    Raises:
        RequestError: The choice names a tool that is not among them (400).
    """
    if choice == "none":
        return [], Constraint(content_rule=rule)
    if choice == "required":
        return tools, Constraint(tool_use="required")
    if isinstance(choice, NamedTool):
        return tools, Constraint(tool_use="required", tool_name=choice.function.name)
    if isinstance(choice, AllowedToolsChoice):
        names = {tool.function.name for tool in choice.allowed_tools.tools}
        unknown = names - {tool["function"]["name"] for tool in tools}
        if unknown:
            raise RequestError(
                400,
                f"tool_choice allows {min(unknown)!r:.60}, which is not among the tools",
                param="tool_choice",
            )
        allowed = [tool for tool in tools if tool["function"]["name"] in names]
        if choice.allowed_tools.mode == "required":
            return allowed, Constraint(tool_use="required")
        return allowed, Constraint(content_rule=rule)
    return tools, Constraint(content_rule=rule)
