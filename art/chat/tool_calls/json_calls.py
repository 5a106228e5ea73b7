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


def call_from_object(value: Any, *, arguments_required: bool = False) -> ToolCall | None:
    """Read a decoded JSON value as a tool call, as tolerantly as models write.

    The arguments stand under ``arguments`` or ``parameters``. They may be absent, null, empty, or
    themselves the JSON text of an object.

    Args:
        value: Any JSON value.
        arguments_required: Whether an object without the key of the arguments is no call.

    Returns:
        The call; ``None`` where the value is no object with a name and such arguments.
    """
    if not isinstance(value, dict):
        return None
    name = value.get("name")
    key = next((key for key in _ARGUMENT_KEYS if key in value), None)
    if not isinstance(name, str) or not name or (arguments_required and key is None):
        return None
    arguments = object_of_arguments(value.get(key) if key is not None else None)
    if arguments is None:
        return None
    call_id = value.get("id")
    return new_call(name, arguments, call_id if isinstance(call_id, str) and call_id else None)


def object_of_arguments(value: Any) -> dict[str, Any] | None:
    """Read decoded arguments as an object; ``None`` where they are no object and not empty."""
    if isinstance(value, str):
        if not value.strip():
            return {}
        decoded = decode_json(value, 0)
        if decoded is None or skip_space(value, decoded[1]) != len(value):
            return None
        value = decoded[0]
    if value is None:
        return {}
    return value if isinstance(value, dict) else None


def new_call(name: str, arguments: dict[str, Any], call_id: str | None = None) -> ToolCall | None:
    """Make a tool call; ``None`` where no UTF-8 response can carry it."""
    return checked_call(ToolCall(name, json.dumps(arguments, ensure_ascii=False), call_id))


def checked_call(call: ToolCall) -> ToolCall | None:
    """Pass a tool call on; ``None`` where no UTF-8 response can carry it."""
    try:
        # JSON can escape half of a surrogate pair.
        (call.name + call.arguments + (call.id or "")).encode()
    except UnicodeEncodeError:
        return None
    return call


def call_object_text(call: ToolCall) -> str:
    """Write a call as ``{"name": …, "arguments": {…}}``."""
    return f'{{"name": {json.dumps(call.name, ensure_ascii=False)}, "arguments": {call.arguments}}}'


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


_ARGUMENT_KEYS = ("arguments", "parameters")
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
