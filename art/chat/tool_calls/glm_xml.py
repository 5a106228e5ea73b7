"""The format of GLM-4.5 and later: ``<tool_call>name<arg_key>…</arg_key><arg_value>…``."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from art.chat.lark import literal, marker, tool_argument
from art.chat.tool_calls.json_calls import new_call, skip_space
from art.chat.tool_calls.protocol import ParsedText, Tool
from art.chat.tool_calls.tagged_blocks import (
    CLOSE,
    OPEN,
    Block,
    ends_without_closing_tag,
    parse_blocks,
)
from art.chat.tool_calls.typed_values import (
    parameter_schemas,
    schema_items,
    schema_types,
    schemas_by_tool,
    typed_value,
)


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
    ) -> str:
        """See :meth:`art.chat.tool_calls.protocol.ToolCallFormat.grammar`."""
        opening, closing, *marks = (marker(each, token_ids) for each in self.markers)
        calls = " | ".join(_call_grammar(tool, marks) for tool in tools)
        more = ' ("\\n"? block)*' if parallel else ""
        end = marks[-1]
        text = f"text[suffix={end}]" if end.startswith('"') else "text"
        return (
            f'tool_calls: "\\n"? block{more}\n'
            f"block: {opening} call {closing}\n"
            f"call: {calls}\n"
            f"{text}: /(?s:.*)/"
        )


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


def _call_grammar(tool: Tool, marks: Sequence[str]) -> str:
    """Write a name and its pairs; ``marks`` are those around a key and around a value."""
    key_opening, key_closing, opening, closing = marks
    function = tool["function"]
    parameters = function.get("parameters") or {}
    required = schema_items(parameters.get("required"))
    definitions = {key: parameters[key] for key in ("$defs", "definitions") if key in parameters}
    pieces = [f'{literal(function["name"])} "\\n"?']
    for key, schema in parameter_schemas(tool).items():
        types = schema_types(schema)
        if not types or "string" in types:
            # A text ends with the closing mark; as a suffix where that is no token.
            value = "text" if closing.startswith('"') else f"text {closing}"
        else:
            lenient = function.get("strict") is not True
            value = f"{tool_argument({**schema, **definitions}, lenient=lenient)} {closing}"
        pair = f'{key_opening} {literal(key)} {key_closing} "\\n"? {opening} {value} "\\n"?'
        pieces.append(f"({pair})" if key in required else f"({pair})?")
    return " ".join(pieces)
