"""JSON values inside text, and tool calls made from them."""

import json
from collections.abc import Sequence
from typing import Any

from art.chat.lark import literal, tool_argument
from art.chat.tool_calls.protocol import Tool, ToolCall


def decode_json(text: str, start: int) -> tuple[Any, int] | None:
    """Decode the JSON value at a position, after white space.

    Returns:
        The value and the position of its end; ``None`` where there is no JSON value.
    """
    try:
        return _DECODER.raw_decode(text, skip_space(text, start))
    except (ValueError, RecursionError):
        return None


def skip_space(text: str, start: int) -> int:
    """Find the first position from ``start`` on that holds no white space."""
    while start < len(text) and text[start].isspace():
        start += 1
    return start


def call_from_object(value: Any, arguments_key: str) -> ToolCall | None:
    """Read a decoded JSON value as a tool call.

    Args:
        value: Any JSON value.
        arguments_key: The key of the arguments, such as ``"arguments"``.

    Returns:
        The call; ``None`` where the value is no object with a name and an object of arguments.
    """
    if not isinstance(value, dict) or not isinstance(value.get(arguments_key), dict):
        return None
    name = value.get("name")
    if not isinstance(name, str) or not name:
        return None
    return new_call(name, value[arguments_key])


def new_call(name: str, arguments: dict[str, Any]) -> ToolCall | None:
    """Make a tool call; ``None`` where no UTF-8 response can carry it."""
    call = ToolCall(name, json.dumps(arguments, ensure_ascii=False))
    try:
        # JSON can escape half of a surrogate pair.
        (call.name + call.arguments).encode()
    except UnicodeEncodeError:
        return None
    return call


def call_object_grammar(tools: Sequence[Tool], arguments_key: str) -> str:
    """Write the Lark rule ``call``: ``{"name": …, …: {…}}`` of one of some tools.

    Args:
        tools: The tools.
        arguments_key: The key of the arguments, such as ``"arguments"``.
    """
    calls = []
    for tool in tools:
        function = tool["function"]
        name = json.dumps(function["name"], ensure_ascii=False)
        head = literal(f'{{"name": {name}, "{arguments_key}": ')
        calls.append(f'{head} {arguments_grammar(function)} "}}"')
    return f"call: {' | '.join(calls)}"


def arguments_grammar(function: Any) -> str:
    """Write the JSON object of a function's arguments, in Lark.

    Keywords of its schema that the grammar library lacks are refused only where the function is
    ``strict``, as the OpenAI API has it.
    """
    schema = {**(function.get("parameters") or {}), "type": "object"}
    return tool_argument(schema, lenient=function.get("strict") is not True)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
