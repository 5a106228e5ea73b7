"""The grammar of Gemma 4's calls: bare keys in the order of templates, strings between marks."""

from collections.abc import Mapping, Sequence
from typing import Any

from art.chat.lark import literal, marker
from art.chat.tool_calls.protocol import Tool
from art.chat.tool_calls.typed_values import parameter_schemas, schema_items, schema_types

OPEN, CLOSE, QUOTE = "<|tool_call>", "<tool_call|>", '<|"|>'

_RULES_OF_VALUES = r"""
any: string | NUMBER | "true" | "false" | "null" | any_list | any_object
any_list: "[" (any ("," any)*)? "]"
any_object: "{" (KEY ":" any ("," KEY ":" any)*)? "}"
NUMBER: /-?(0|[1-9][0-9]{0,15})(\.[0-9]{1,15})?/
INTEGER: /-?(0|[1-9][0-9]{0,15})/
KEY: /[^:{}\[\],<>\s"]{1,200}/
""".strip()
_OF_TYPE = {
    "integer": "INTEGER",
    "number": "NUMBER",
    "boolean": '("true" | "false")',
    "null": '"null"',
    "string": "string",
}


def calls_grammar(tools: Sequence[Tool], *, parallel: bool, token_ids: Mapping[str, int]) -> str:
    """Write the Lark rule ``tool_calls``.

    Schemas bind names, required arguments, types, and the texts of an ``enum``; what else they say
    is left to the tool.

    Args:
        tools: The tools to choose from.
        parallel: Whether there may be several calls.
        token_ids: The marks that are tokens of the model, with their ids.
    """
    opening, closing, quote = (marker(each, token_ids) for each in (OPEN, CLOSE, QUOTE))
    calls = [
        f"{literal('call:' + tool['function']['name'])} "
        f"{_object(parameter_schemas(tool), tool['function'].get('parameters') or {}, quote)}"
        for tool in tools
    ]
    # No text matches a token that is special, so the mark ends the text where it is one.
    text = "text" if QUOTE in token_ids else f"text[suffix={quote}]"
    end = quote if QUOTE in token_ids else ""
    return "\n".join(
        [
            f"tool_calls: block{'+' if parallel else ''}",
            f"block: {opening} call {closing}",
            f"call: {' | '.join(calls)}",
            f"string: {quote} text {end}",
            f"{text}: /(?s:.*)/",
            _RULES_OF_VALUES,
        ]
    )


def _object(properties: Mapping[str, Any], schema: Mapping[str, Any], quote: str) -> str:
    """Write an object: its keys in the order of templates, the optional ones left out or not."""
    required = schema_items(schema.get("required"))
    keys = sorted(properties, key=lambda key: (key.lower(), key))
    if not keys:
        return '"{" "}"'
    members = [f"{literal(f'{key}:')} {_value(properties[key], quote)}" for key in keys]
    alternatives = []
    # One alternative for each key that can be the first.
    for first, key in enumerate(keys):
        rest = [
            f'("," {member})' + ("" if later in required else "?")
            for later, member in zip(keys[first + 1 :], members[first + 1 :], strict=True)
        ]
        alternatives.append(" ".join([members[first], *rest]))
        if key in required:
            break
    else:
        return f'"{{" ({" | ".join(alternatives)})? "}}"'
    return f'"{{" ({" | ".join(alternatives)}) "}}"'


def _value(schema: Any, quote: str) -> str:
    types = schema_types(schema)
    values = schema_items(schema.get("enum")) if isinstance(schema, Mapping) else []
    if types == {"string"} and values and all(isinstance(value, str) for value in values):
        return f"{quote} ({' | '.join(map(literal, values))}) {quote}"
    written = [_of_type(each, schema, quote) for each in sorted(types)]
    return f"({' | '.join(written)})" if written else "any"


def _of_type(name: str, schema: Any, quote: str) -> str:
    items, properties = schema.get("items"), schema.get("properties")
    if name == "array":
        item = _value(items, quote) if isinstance(items, Mapping) else "any"
        return f'"[" ({item} ("," {item})*)? "]"'
    if name == "object":
        if isinstance(properties, Mapping) and properties:
            return _object(properties, schema, quote)
        return "any_object"
    return _OF_TYPE.get(name, "any")
