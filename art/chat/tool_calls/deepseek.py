"""The formats of DeepSeek V3, R1 and V3.1, between ``<｜tool▁calls▁begin｜>`` and its end."""

import re
from collections.abc import Mapping, Sequence

from art.chat.lark import literal, marker
from art.chat.tool_calls.json_calls import (
    arguments_grammar,
    checked_call,
    decode_json,
    object_of_arguments,
)
from art.chat.tool_calls.marked_calls import parse_marked_calls
from art.chat.tool_calls.protocol import ParsedText, Tool, ToolCall

_BEGIN, _SEPARATOR, _END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"
_SECTION = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>")


class DeepSeekFormat:
    """One call: ``function<｜tool▁sep｜>name`` and a block of JSON, or ``name<｜tool▁sep｜>{…}``.

    V3 and R1 write the first form, V3.1 the second. Templates put the arguments into the history
    as the text that they are given, so the text is kept as the model wrote it.
    """

    template_mark = _SEPARATOR
    markers = (*_SECTION, _BEGIN, _SEPARATOR, _END)

    def parse(self, text: str, tools: Sequence[Tool]) -> ParsedText:
        """See :meth:`art.chat.tool_calls.protocol.ToolCallFormat.parse`."""
        return parse_marked_calls(text, _BEGIN, _read_call, _SECTION_MARKERS)

    def write(self, calls: Sequence[ToolCall]) -> str:
        """See :meth:`art.chat.tool_calls.protocol.CallWriter.write`: as V3 and R1 do."""
        written = [
            f"{_BEGIN}function{_SEPARATOR}{call.name}\n```json\n{call.arguments}\n```{_END}"
            for call in calls
        ]
        return _SECTION[0] + "\n".join(written) + _SECTION[1]

    def grammar(
        self, tools: Sequence[Tool], *, parallel: bool, token_ids: Mapping[str, int]
    ) -> str:
        """See :meth:`art.chat.tool_calls.protocol.ToolCallFormat.grammar`."""
        begin, separator, end, opening, closing = (
            marker(each, token_ids) for each in (_BEGIN, _SEPARATOR, _END, *_SECTION)
        )
        calls = []
        for function in (tool["function"] for tool in tools):
            name, arguments = function["name"], arguments_grammar(function)
            head, tail = literal(f"{name}\n```json\n"), literal("\n```")
            calls.append(f'"function" {separator} {head} {arguments} {tail}')
            calls.append(f"{literal(name)} {separator} {arguments}")
        more = ' ("\\n"? block)*' if parallel else ""
        return (
            f"tool_calls: {opening} block{more} {closing}\n"
            f"block: {begin} call {end}\n"
            f"call: {' | '.join(calls)}"
        )


DEEPSEEK = DeepSeekFormat()

_SECTION_MARKERS = re.compile(r"\s*(?:" + "|".join(map(re.escape, _SECTION)) + r")\s*")
_HEAD = re.compile(rf"\s*([^\n<]*){re.escape(_SEPARATOR)}(?:([^\n{{<]+)\n```(?:json)?\n)?")
_TAIL = re.compile(
    rf"\s*(?:```)?\s*(?:{re.escape(_END)}|(?={re.escape(_BEGIN)}|{re.escape(_SECTION[1])}|\Z))"
)


def _read_call(text: str, start: int) -> tuple[ToolCall, int] | None:
    head = _HEAD.match(text, start)
    if head is None:
        return None
    name = (head.group(2) or head.group(1)).strip()
    empty = _TAIL.match(text, head.end())
    if empty is not None:
        return (ToolCall(name, "{}"), empty.end()) if name else None
    decoded = decode_json(text, head.end())
    if decoded is None or not name or object_of_arguments(decoded[0]) is None:
        return None
    tail = _TAIL.match(text, decoded[1])
    arguments = text[head.end() : decoded[1]].strip()
    if not isinstance(decoded[0], dict):
        arguments = decoded[0] if isinstance(decoded[0], str) and decoded[0].strip() else "{}"
    call = checked_call(ToolCall(name, arguments))
    return None if tail is None or call is None else (call, tail.end())
