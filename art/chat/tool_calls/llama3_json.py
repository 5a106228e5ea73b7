"""The Llama 3 format: the whole message is ``{"name": …, "parameters": {…}}``."""

import re
from collections.abc import Mapping, Sequence

from art.chat.lark import marker
from art.chat.tool_calls.json_calls import (
    call_from_object,
    call_object_grammar,
    decode_json,
    skip_space,
)
from art.chat.tool_calls.protocol import ParsedText, Tool, ToolCall
from art.chat.tool_calls.typed_values import tool_names

_TAG, _START, _END = "<|python_tag|>", "<|python_start|>", "<|python_end|>"


class Llama3JsonFormat:
    """A JSON object with ``name`` and ``parameters``, or several, separated by ``;`` or nothing.

    Any JSON answer could look like that, so the name must be that of a tool on offer. Llama 3
    may begin with ``<|python_tag|>``; Llama 4 may write text between ``<|python_start|>`` and
    ``<|python_end|>`` before the calls, or the calls themselves there.
    """

    template_mark = '"parameters": '
    markers = (_TAG, _START, _END)

    def parse(self, text: str, tools: Sequence[Tool]) -> ParsedText:
        """See :meth:`art.chat.tool_calls.protocol.ToolCallFormat.parse`."""
        names = tool_names(tools)
        frame = _FRAME.fullmatch(text)
        content, inside = (frame.group(2) or "", frame.group(3)) if frame else ("", text)
        calls = _read_calls(inside, names)
        if calls is None and not inside.strip():
            content, calls = "", _read_calls(content, names)
        return ParsedText(text) if calls is None else ParsedText(content, tuple(calls))

    def grammar(
        self, tools: Sequence[Tool], *, parallel: bool, token_ids: Mapping[str, int]
    ) -> str:
        """See :meth:`art.chat.tool_calls.protocol.ToolCallFormat.grammar`."""
        frames = [
            " ".join(marker(each, token_ids) for each in frame)
            for frame in ((_TAG,), (_START, _END))
            if token_ids.keys() >= {*frame}
        ]
        before = f"({' | '.join(frames)})? " if frames else ""
        more = ' ("; "? call)*' if parallel else ""
        return f"tool_calls: {before}call{more}\n{call_object_grammar(tools, 'parameters')}"


LLAMA3_JSON = Llama3JsonFormat()

_FRAME = re.compile(
    r"\s*(<\|python_tag\|>|<\|python_start\|>(.*?)<\|python_end\|>|<\|python_start\|>)?(.*)",
    re.DOTALL,
)


def _read_calls(text: str, names: frozenset[str]) -> list[ToolCall] | None:
    calls: list[ToolCall] = []
    position = 0
    while True:
        decoded = decode_json(text, position)
        if decoded is None:
            return None
        value, position = decoded
        call = call_from_object(value, arguments_required=True)
        if call is None or call.name not in names:
            return None
        calls.append(call)
        position = skip_space(text, position)
        if position == len(text):
            return calls
        position += text[position] == ";"
