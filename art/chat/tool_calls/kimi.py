"""The format of Kimi K2: ``<|tool_call_begin|>functions.name:0<|tool_call_argument_begin|>{…}``."""

import re
from collections.abc import Mapping, Sequence

from art.chat.lark import literal, marker
from art.chat.tool_calls.json_calls import (
    arguments_grammar,
    decode_json,
    new_call,
    object_of_arguments,
)
from art.chat.tool_calls.marked_calls import parse_marked_calls
from art.chat.tool_calls.protocol import ParsedText, Tool, ToolCall

_BEGIN, _ARGUMENT, _END = (
    "<|tool_call_begin|>",
    "<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
)
_SECTION = ("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>")


class KimiFormat:
    """A section of calls, each with an id that holds the name and the call's number."""

    template_mark = _SECTION[0]
    markers = (*_SECTION, _BEGIN, _ARGUMENT, _END)

    def parse(self, text: str, tools: Sequence[Tool]) -> ParsedText:
        """See :meth:`art.chat.tool_calls.protocol.ToolCallFormat.parse`."""
        return parse_marked_calls(text, _BEGIN, _read_call, _SECTION_MARKERS)

    def grammar(
        self, tools: Sequence[Tool], *, parallel: bool, token_ids: Mapping[str, int]
    ) -> str:
        """See :meth:`art.chat.tool_calls.protocol.ToolCallFormat.grammar`."""
        begin, argument, end, opening, closing = (
            marker(each, token_ids) for each in (_BEGIN, _ARGUMENT, _END, *_SECTION)
        )
        calls = []
        for function in (tool["function"] for tool in tools):
            name, arguments = literal(f"functions.{function['name']}:"), arguments_grammar(function)
            calls.append(f"{name} /[0-9]{{1,3}}/ {argument} {arguments}")
        blocks = "block+" if parallel else "block"
        return (
            f"tool_calls: {opening} {blocks} {closing}\n"
            f"block: {begin} call {end}\n"
            f"call: {' | '.join(calls)}"
        )


KIMI = KimiFormat()

_SECTION_MARKERS = re.compile("|".join(map(re.escape, _SECTION)))
_HEAD = re.compile(rf"\s*((?:functions\.)?([^\s<:]+)(?::\d+)?)\s*{re.escape(_ARGUMENT)}")
_TAIL = re.compile(rf"\s*(?:{re.escape(_END)}|(?={re.escape(_BEGIN)}|{re.escape(_SECTION[1])}|\Z))")


def _read_call(text: str, start: int) -> tuple[ToolCall, int] | None:
    head = _HEAD.match(text, start)
    if head is None:
        return None
    tail = _TAIL.match(text, head.end())
    decoded = ({}, head.end()) if tail is not None else decode_json(text, head.end())
    arguments = None if decoded is None else object_of_arguments(decoded[0])
    if decoded is None or arguments is None:
        return None
    tail = _TAIL.match(text, decoded[1])
    call = new_call(head.group(2), arguments, head.group(1))
    return None if tail is None or call is None else (call, tail.end())
