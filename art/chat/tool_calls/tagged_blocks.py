"""Tool calls between ``<tool_call>`` and ``</tool_call>``, whatever is written inside."""

from collections.abc import Callable, Mapping

from art.chat.lark import marker
from art.chat.tool_calls.protocol import ParsedText, ToolCall

OPEN, CLOSE = "<tool_call>", "</tool_call>"

# Given a text and the end of an opening tag, returns the block's calls and the position after its
# closing tag; None where the block is malformed.
BlockReader = Callable[[str, int], tuple[list[ToolCall], int] | None]


def parse_blocks(text: str, read_block: BlockReader) -> ParsedText:
    """Separate the blocks that can be read from the rest of a message.

    Args:
        text: The message.
        read_block: Reads one block.

    Returns:
        The calls in order; all other text, malformed blocks included, as content.
    """
    content: list[str] = []
    calls: list[ToolCall] = []
    position = 0
    while (start := text.find(OPEN, position)) >= 0:
        block = read_block(text, start + len(OPEN))
        if block is None:
            content.append(text[position : start + len(OPEN)])
            position = start + len(OPEN)
            continue
        # Templates write one newline before a block: it separates, and is not content.
        content.append(text[position:start].removesuffix("\n"))
        calls += block[0]
        position = block[1]
    content.append(text[position:])
    return ParsedText("".join(content), tuple(calls))


def blocks_grammar(*, parallel: bool, token_ids: Mapping[str, int]) -> str:
    """Write the Lark rule ``tool_calls``: one block or several around the rule ``call``.

    Args:
        parallel: Whether there may be several.
        token_ids: The tags that are tokens of the model, with their ids.
    """
    more = ' ("\\n" block)*' if parallel else ""
    opening, closing = marker(OPEN, token_ids), marker(CLOSE, token_ids)
    return f'tool_calls: block{more}\nblock: {opening} "\\n" call "\\n" {closing}'
