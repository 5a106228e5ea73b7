"""Tool calls between ``<tool_call>`` and ``</tool_call>``, whatever is written inside."""

import re
from collections.abc import Mapping
from typing import Protocol

from art.chat.lark import marker
from art.chat.tool_calls.protocol import ParsedText, ToolCall

OPEN, CLOSE = "<tool_call>", "</tool_call>"

# The calls of a block, and the position after it.
Block = tuple[list[ToolCall], int]


class BlockReader(Protocol):
    """Read one block; ``None`` where it is malformed."""

    def __call__(self, text: str, start: int, *, opened: bool) -> Block | None:
        """Read the block whose inside begins at a position.

        Args:
            text: The message.
            start: The end of the opening tag, or the beginning of a block without one.
            opened: Whether there is an opening tag.
        """
        ...


def parse_blocks(
    text: str, read_block: BlockReader, *, bare: re.Pattern[str], separator: str = "\n"
) -> ParsedText:
    """Separate the blocks that can be read from the rest of a message.

    Args:
        text: The message.
        read_block: Reads one block.
        bare: The beginning of a block whose opening tag was left out.
        separator: The newlines that templates write between text and a block; one is between
            blocks.

    Returns:
        The calls in order; all other text, malformed blocks included, as content.
    """
    beginning = re.compile(f"{OPEN}|{bare.pattern}", bare.flags)
    content: list[str] = []
    calls: list[ToolCall] = []
    position = 0
    while (found := beginning.search(text, position)) is not None:
        opened = found.group() == OPEN
        block = read_block(text, found.end() if opened else found.start(), opened=opened)
        if block is None:
            content.append(text[position : found.end()])
            position = found.end()
            continue
        # Templates write newlines before a block: they separate, and are not content.
        before = text[position : found.start()]
        content.append(before.removesuffix(separator if before.endswith(separator) else "\n"))
        calls += block[0]
        position = block[1]
    content.append(text[position:])
    return ParsedText("".join(content), tuple(calls))


def ends_without_closing_tag(text: str, position: int) -> bool:
    """Tell whether a block that lacks its closing tag may end at a position.

    Models leave the tag out at the end of their turn, or where the next block begins.
    """
    return position == len(text) or text.startswith(OPEN, position)


def blocks_grammar(*, parallel: bool, token_ids: Mapping[str, int]) -> str:
    """Write the Lark rule ``tool_calls``: one block or several around the rule ``call``.

    Args:
        parallel: Whether there may be several.
        token_ids: The tags that are tokens of the model, with their ids.
    """
    more = ' ("\\n" block)*' if parallel else ""
    opening, closing = marker(OPEN, token_ids), marker(CLOSE, token_ids)
    return f'tool_calls: block{more}\nblock: {opening} "\\n" call "\\n" {closing}'
