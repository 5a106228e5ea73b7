"""The format of GLM-4.5 and later: ``<tool_call>name<arg_key>…</arg_key><arg_value>…``."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from art.chat.tool_calls.json_calls import new_call, skip_space
from art.chat.tool_calls.protocol import ParsedText, Tool
from art.chat.tool_calls.tagged_blocks import (
    CLOSE,
    OPEN,
    Block,
    ends_without_closing_tag,
    parse_blocks,
)
from art.chat.tool_calls.typed_values import schemas_by_tool, typed_value


class GlmXmlFormat:
    """``<tool_call>`` around a name and pairs of ``<arg_key>`` and ``<arg_value>``.

    GLM-4.5 and 4.6 write each on a line of its own, GLM-4.7 all on one line. Texts are written
    as they are and other values as JSON, so the types come from the tools' schemas.
    """

    template_mark = "<arg_key>"
    markers = (OPEN, CLOSE, "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>")

    def parse(self, text: str, tools: Sequence[Tool]) -> ParsedText:
        """See :meth:`art.chat.tool_calls.protocol.ToolCallFormat.parse`."""
        schemas = schemas_by_tool(tools)

        def read_block(text: str, start: int, *, opened: bool) -> Block | None:
            return _read_block(text, start, schemas, opened=opened)

        return parse_blocks(text, read_block, bare=_BARE)

    def grammar(
        self, tools: Sequence[Tool], *, parallel: bool, token_ids: Mapping[str, int]
    ) -> None:
        """See :meth:`art.chat.tool_calls.protocol.ToolCallFormat.grammar`: there is none."""


GLM_XML = GlmXmlFormat()

_BARE = re.compile(r"^[^\s<>]+(?=\s*<arg_key>)", re.MULTILINE)
_NAME = re.compile(r"\s*([^\s<>]+)")
_ARGUMENT = re.compile(
    r"\s*<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>(?=\s*(?:<arg_key>|<|\Z))",
    re.DOTALL,
)


def _read_block(
    text: str, start: int, schemas: Mapping[str, Mapping[str, Any]], *, opened: bool
) -> Block | None:
    name = _NAME.match(text, start)
    if name is None:
        return None
    known = name.group(1) in schemas
    arguments: dict[str, Any] = {}
    position = name.end()
    while (argument := _ARGUMENT.match(text, position)) is not None:
        key, value = argument.group(1).strip(), argument.group(2)
        arguments[key] = typed_value(value, schemas.get(name.group(1), {}).get(key, {}))
        position = argument.end()
    end = skip_space(text, position)
    closed = text.startswith(CLOSE, end)
    # A name alone could be any word, and cut off it may be the beginning of a longer one.
    tolerated = opened and known and bool(arguments) and ends_without_closing_tag(text, end)
    if not (closed or tolerated) or not (known or (opened and arguments)):
        return None
    call = new_call(name.group(1), arguments)
    return None if call is None else ([call], end + len(CLOSE) if closed else end)
