"""Argument values that a format writes as plain text, read by the tools' JSON schemas."""

from collections.abc import Mapping, Sequence
from typing import Any

from art.chat.tool_calls.json_calls import decode_json, skip_space
from art.chat.tool_calls.protocol import Tool


def tool_names(tools: Sequence[Tool]) -> frozenset[str]:
    """Collect the names of tools."""
    return frozenset(tool["function"]["name"] for tool in tools)


def schemas_by_tool(tools: Sequence[Tool]) -> dict[str, Mapping[str, Any]]:
    """Collect the schemas of each tool's parameters, by the names of both."""
    return {tool["function"]["name"]: parameter_schemas(tool) for tool in tools}


def parameter_schemas(tool: Tool) -> Mapping[str, Any]:
    """Look up the JSON schemas of a tool's parameters, by name."""
    parameters = tool["function"].get("parameters") or {}
    properties = parameters.get("properties") or {}
    return properties if isinstance(properties, Mapping) else {}


def typed_value(text: str, schema: Any) -> Any:
    """Read a value written as text, by the types that its JSON schema allows.

    Text that fits no type but a string, or none at all, stays a string: the tool sees what the
    model wrote.
    """
    types = schema_types(schema)
    if types == {"string"}:
        return text
    # Templates write Python's True, False and None as well as JSON's.
    literal = {"true": True, "false": False, "none": None, "null": None}.get(text.lower(), text)
    if literal is not text:
        wanted = "null" if literal is None else "boolean"
        return literal if not types or wanted in types else text
    decoded = decode_json(text, 0)
    if decoded is None or skip_space(text, decoded[1]) != len(text):
        return text
    value = decoded[0]
    if isinstance(value, str):
        return text
    return value if not types or _json_types(value) & types else text


def schema_types(schema: Any) -> set[str]:
    """Collect the JSON types that a schema names; none where it names none."""
    if not isinstance(schema, Mapping):
        return set()
    stated = schema.get("type")
    types = {each for each in (stated, *schema_items(stated)) if isinstance(each, str)}
    for option in (*schema_items(schema.get("anyOf")), *schema_items(schema.get("oneOf"))):
        types |= schema_types(option)
    values = schema_items(schema.get("enum"))
    if not types and values and all(isinstance(value, str) for value in values):
        return {"string"}
    return types


def schema_items(value: Any) -> list[Any]:
    """The items of a list; none where it is no list, which a client's schema may be."""
    return value if isinstance(value, list) else []


def _json_types(value: Any) -> set[str]:
    if isinstance(value, dict):
        return {"object"}
    if isinstance(value, list):
        return {"array"}
    return {"number", "integer"} if isinstance(value, int) else {"number"}
