"""The format of Llama's and Gemma's Python-like calls: ``[name(key="value"), other()]``."""

import ast
from collections.abc import Mapping, Sequence
from typing import Any

from art.chat.tool_calls.json_calls import new_call
from art.chat.tool_calls.protocol import ParsedText, Tool, ToolCall
from art.chat.tool_calls.typed_values import tool_names

_FRAME = ("<|python_start|>", "<|python_end|>")


class PythonicFormat:
    """The whole message is a list of calls with keyword arguments that are Python literals.

    Any list could look like that, so the names must be those of tools on offer.
    """

    template_mark = "[func_name1("
    markers = _FRAME

    def parse(self, text: str, tools: Sequence[Tool]) -> ParsedText:
        """See :meth:`art.chat.tool_calls.protocol.ToolCallFormat.parse`."""
        inside = text.strip().removeprefix(_FRAME[0]).removesuffix(_FRAME[1]).strip()
        calls = _read_calls(inside, tool_names(tools)) if inside.startswith("[") else None
        return ParsedText(text) if calls is None else ParsedText("", tuple(calls))

    def grammar(
        self, tools: Sequence[Tool], *, parallel: bool, token_ids: Mapping[str, int]
    ) -> None:
        """See :meth:`art.chat.tool_calls.protocol.ToolCallFormat.grammar`: there is none."""


PYTHONIC = PythonicFormat()


def _read_calls(text: str, names: frozenset[str]) -> list[ToolCall] | None:
    try:
        expression = ast.parse(text, mode="eval").body
    # A text that nests deeply exhausts the parser's stack or memory.
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if not isinstance(expression, ast.List):
        return None
    calls = [_read_call(each, names) for each in expression.elts]
    well_formed = [call for call in calls if call is not None]
    return well_formed if calls and len(well_formed) == len(calls) else None


def _read_call(node: ast.expr, names: frozenset[str]) -> ToolCall | None:
    if not isinstance(node, ast.Call) or node.args:
        return None
    name = ast.unparse(node.func)
    if name not in names:
        return None
    arguments: dict[str, Any] = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            return None
        try:
            arguments[keyword.arg] = ast.literal_eval(keyword.value)
        except (ValueError, TypeError, RecursionError, MemoryError):
            return None
    try:
        return new_call(name, arguments)
    except (TypeError, ValueError):
        # A literal that JSON has no word for, such as a set or bytes.
        return None
