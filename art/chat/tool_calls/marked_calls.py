"""Tool calls between marker tokens of their own, in a section or one by one."""

import re
from collections.abc import Callable

from art.chat.tool_calls.protocol import ParsedText, ToolCall

# Given a text and the end of a call's opening marker, returns the call and the position after it;
# None where the call is malformed.
CallReader = Callable[[str, int], tuple[ToolCall, int] | None]


def parse_marked_calls(
    text: str, opening: str, read_call: CallReader, section: re.Pattern[str] | None = None
) -> ParsedText:
    """Separate the calls that can be read from the rest of a message.

    Args:
        text: The message.
        opening: The marker that begins a call.
        read_call: Reads one call.
        section: The markers around all calls. They are dropped where a call was read.

    Returns:
        The calls in order; all other text, malformed calls included, as content.
    """
    content: list[str] = []
    calls: list[ToolCall] = []
    position = 0
    while (start := text.find(opening, position)) >= 0:
        found = read_call(text, start + len(opening))
        if found is None:
            content.append(text[position : start + len(opening)])
            position = start + len(opening)
            continue
        before = text[position:start]
        # What separates one call from the next is no content.
        content.append("" if calls and not before.strip() else before)
        calls.append(found[0])
        position = found[1]
    content.append(text[position:])
    rest = "".join(content)
    if calls and section is not None:
        rest = section.sub("", rest)
    return ParsedText(rest, tuple(calls))
