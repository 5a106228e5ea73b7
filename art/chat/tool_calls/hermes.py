"""The Hermes format (Qwen2.5, Qwen3): ``<tool_call>{"name": …, "arguments": {…}}</tool_call>``."""

import re
from collections.abc import Mapping, Sequence

from art.chat.tool_calls.json_calls import (
    call_from_object,
    call_object_grammar,
    call_object_text,
    decode_json,
    skip_space,
)
from art.chat.tool_calls.protocol import ParsedText, Tool, ToolCall
from art.chat.tool_calls.tagged_blocks import (
    CLOSE,
    OPEN,
    Block,
    blocks_grammar,
    ends_without_closing_tag,
    parse_blocks,
)
from art.chat.tool_calls.typed_values import tool_names


class HermesFormat:
    """``<tool_call>`` around a JSON object, or a list of them, with ``arguments``."""

    template_mark = OPEN
    markers = (OPEN, CLOSE)

    def parse(self, text: str, tools: Sequence[Tool]) -> ParsedText:
        """See :meth:`art.chat.tool_calls.protocol.ToolCallFormat.parse`."""
        names = tool_names(tools)

        def read_block(text: str, start: int, *, opened: bool) -> Block | None:
            return _read_block(text, start, names, opened=opened)

        return parse_blocks(text, read_block, bare=_BARE)

    def write(self, calls: Sequence[ToolCall]) -> str:
        """See :meth:`art.chat.tool_calls.protocol.CallWriter.write`."""
        return "\n".join(f"{OPEN}\n{call_object_text(call)}\n{CLOSE}" for call in calls)

    def grammar(
        self, tools: Sequence[Tool], *, parallel: bool, token_ids: Mapping[str, int]
    ) -> str:
        """See :meth:`art.chat.tool_calls.protocol.ToolCallFormat.grammar`."""
        blocks = blocks_grammar(parallel=parallel, token_ids=token_ids)
        return f"{blocks}\n{call_object_grammar(tools, 'arguments')}"


HERMES = HermesFormat()


# An object at the beginning of a line, closed by a tag that was never opened.
_BARE = re.compile(r'^[ \t]*\{(?=\s*"name")', re.MULTILINE)


def _read_block(text: str, start: int, names: frozenset[str], *, opened: bool) -> Block | None:
    decoded = decode_json(text, start)
    if decoded is None:
        return None
    value, end = decoded
    end = skip_space(text, end)
    closed = text.startswith(CLOSE, end)
    if not closed and not (opened and ends_without_closing_tag(text, end)):
        return None
    objects = value if isinstance(value, list) else [value]
    calls = [call_from_object(item) for item in objects]
    well_formed = [call for call in calls if call is not None]
    if not calls or len(well_formed) < len(calls):
        return None
    if not opened and any(call.name not in names for call in well_formed):
        return None
    return well_formed, end + len(CLOSE) if closed else end
