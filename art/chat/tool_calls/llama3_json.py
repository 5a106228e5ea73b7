"""The Llama 3 format: the whole message is ``{"name": …, "parameters": {…}}``."""

from collections.abc import Mapping, Sequence

from art.chat.tool_calls.json_calls import (
    call_from_object,
    call_object_grammar,
    decode_json,
    skip_space,
)
from art.chat.tool_calls.protocol import ParsedText, Tool, ToolCall


class Llama3JsonFormat:
    """A JSON object with ``name`` and ``parameters``, or several separated by ``;``.

    Any JSON answer could look like that, so the name must be that of a tool on offer.
    """

    template_mark = '"parameters": '
    markers = ()

    def parse(self, text: str, tools: Sequence[Tool]) -> ParsedText:
        """See :meth:`art.chat.tool_calls.protocol.ToolCallFormat.parse`."""
        names = {tool["function"]["name"] for tool in tools}
        calls: list[ToolCall] = []
        position = 0
        while True:
            decoded = decode_json(text, position)
            if decoded is None:
                return ParsedText(text)
            value, position = decoded
            call = call_from_object(value, "parameters")
            if call is None or call.name not in names:
                return ParsedText(text)
            calls.append(call)
            position = skip_space(text, position)
            if position == len(text):
                return ParsedText("", tuple(calls))
            if text[position] != ";":
                return ParsedText(text)
            position += 1

    def grammar(
        self, tools: Sequence[Tool], *, parallel: bool, token_ids: Mapping[str, int]
    ) -> str:
        """See :meth:`art.chat.tool_calls.protocol.ToolCallFormat.grammar`."""
        more = ' ("; " call)*' if parallel else ""
        return f"tool_calls: call{more}\n{call_object_grammar(tools, 'parameters')}"


LLAMA3_JSON = Llama3JsonFormat()
