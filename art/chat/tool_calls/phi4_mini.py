"""The format of Phi-4-mini: ``<|tool_call|>[{"name": …, "arguments": {…}}]<|/tool_call|>``."""

import re
from collections.abc import Mapping, Sequence

from art.chat.lark import marker
from art.chat.tool_calls.json_calls import (
    call_from_object,
    call_object_grammar,
    call_object_text,
    decode_json,
    skip_space,
)
from art.chat.tool_calls.protocol import ParsedText, Tool, ToolCall
from art.chat.tool_calls.typed_values import tool_names

_OPEN, _CLOSE = "<|tool_call|>", "<|/tool_call|>"


class Phi4MiniFormat:
    """A list of calls between markers; the model also writes it after the word ``functools``."""

    template_mark = "<|tool|>"
    markers = (_OPEN, _CLOSE)

    def parse(self, text: str, tools: Sequence[Tool]) -> ParsedText:
        """See :meth:`art.chat.tool_calls.protocol.ToolCallFormat.parse`."""
        names = tool_names(tools)
        content: list[str] = []
        calls: list[ToolCall] = []
        position = 0
        while (found := _BEGINNING.search(text, position)) is not None:
            block = _read_block(text, found.end(), names, marked=found.group() == _OPEN)
            if block is None:
                content.append(text[position : found.end()])
                position = found.end()
                continue
            # A call in the history is written on a line of its own.
            content.append(text[position : found.start()].removesuffix("\n"))
            calls += block[0]
            position = block[1]
        content.append(text[position:])
        return ParsedText("".join(content), tuple(calls))

    def write(self, calls: Sequence[ToolCall]) -> str:
        """See :meth:`art.chat.tool_calls.protocol.CallWriter.write`."""
        return f"{_OPEN}[{', '.join(map(call_object_text, calls))}]{_CLOSE}"

    def grammar(
        self, tools: Sequence[Tool], *, parallel: bool, token_ids: Mapping[str, int]
    ) -> str:
        """See :meth:`art.chat.tool_calls.protocol.ToolCallFormat.grammar`."""
        more = ' (", " call)*' if parallel else ""
        opening, closing = marker(_OPEN, token_ids), marker(_CLOSE, token_ids)
        calls = call_object_grammar(tools, "arguments")
        return f'tool_calls: {opening} "[" call{more} "]" {closing}\n{calls}'


PHI4_MINI = Phi4MiniFormat()

_BEGINNING = re.compile(re.escape(_OPEN) + r"|functools(?=\[)")


def _read_block(
    text: str, start: int, names: frozenset[str], *, marked: bool
) -> tuple[list[ToolCall], int] | None:
    decoded = decode_json(text, start)
    if decoded is None:
        return None
    objects = decoded[0] if isinstance(decoded[0], list) else [decoded[0]]
    calls = [call_from_object(each) for each in objects]
    well_formed = [call for call in calls if call is not None]
    if not calls or len(well_formed) < len(calls):
        return None
    end = skip_space(text, decoded[1])
    if marked and text.startswith(_CLOSE, end):
        return well_formed, end + len(_CLOSE)
    # The word functools and a list could be prose, unless the tools exist.
    known = all(call.name in names for call in well_formed)
    return (well_formed, decoded[1]) if known and end == len(text) else None
