"""The Hermes format (Qwen2.5, Qwen3): ``<tool_call>{"name": …, "arguments": {…}}</tool_call>``."""

from collections.abc import Mapping, Sequence

from art.chat.tool_calls.json_calls import (
    call_from_object,
    call_object_grammar,
    decode_json,
    skip_space,
)
from art.chat.tool_calls.protocol import ParsedText, Tool, ToolCall
from art.chat.tool_calls.tagged_blocks import CLOSE, OPEN, blocks_grammar, parse_blocks


class HermesFormat:
    """``<tool_call>`` around a JSON object, or a list of them, with ``arguments``."""

    template_mark = OPEN
    markers = (OPEN, CLOSE)

    def parse(self, text: str, tools: Sequence[Tool]) -> ParsedText:
        """See :meth:`art.chat.tool_calls.protocol.ToolCallFormat.parse`."""
        return parse_blocks(text, _read_block)

    def grammar(
        self, tools: Sequence[Tool], *, parallel: bool, token_ids: Mapping[str, int]
    ) -> str:
        """See :meth:`art.chat.tool_calls.protocol.ToolCallFormat.grammar`."""
        blocks = blocks_grammar(parallel=parallel, token_ids=token_ids)
        return f"{blocks}\n{call_object_grammar(tools, 'arguments')}"


HERMES = HermesFormat()


def _read_block(text: str, start: int) -> tuple[list[ToolCall], int] | None:
    decoded = decode_json(text, start)
    if decoded is None:
        return None
    value, end = decoded
    end = skip_space(text, end)
    if not text.startswith(CLOSE, end):
        return None
    objects = value if isinstance(value, list) else [value]
    calls = [call_from_object(item, "arguments") for item in objects]
    well_formed = [call for call in calls if call is not None]
    if not calls or len(well_formed) < len(calls):
        return None
    return well_formed, end + len(CLOSE)
