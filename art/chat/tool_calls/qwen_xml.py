"""The XML format of Qwen3-Coder and Qwen3.5: ``<tool_call><function=…><parameter=…>…``."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from art.chat.lark import literal, tool_argument
from art.chat.tool_calls.json_calls import new_call
from art.chat.tool_calls.protocol import ParsedText, Tool
from art.chat.tool_calls.tagged_blocks import CLOSE, OPEN, Block, blocks_grammar, parse_blocks
from art.chat.tool_calls.typed_values import (
    parameter_schemas,
    schema_items,
    schema_types,
    schemas_by_tool,
    typed_value,
)


class QwenXmlFormat:
    """``<tool_call>`` around ``<function=…>`` with one ``<parameter=…>`` for each argument.

    Values are written as plain text, so their types come from the tools' schemas. A string
    value that itself holds ``</parameter>`` before another tag cannot be told from markup.
    """

    template_mark = "<function="
    markers = (OPEN, CLOSE)

    def parse(self, text: str, tools: Sequence[Tool]) -> ParsedText:
        """See :meth:`art.chat.tool_calls.protocol.ToolCallFormat.parse`."""
        schemas = schemas_by_tool(tools)

        def read_block(text: str, start: int, *, opened: bool) -> Block | None:
            return _read_block(text, start, schemas, opened=opened)

        return parse_blocks(text, read_block, bare=_BARE, separator="\n\n")

    def grammar(
        self, tools: Sequence[Tool], *, parallel: bool, token_ids: Mapping[str, int]
    ) -> str:
        """See :meth:`art.chat.tool_calls.protocol.ToolCallFormat.grammar`."""
        calls = " | ".join(_function_grammar(tool) for tool in tools)
        blocks = blocks_grammar(parallel=parallel, token_ids=token_ids)
        # The first closing tag ends a text, as the parser has it.
        text = 'text[suffix="\\n</parameter>"]: /(?s:.*)/'
        return f"{blocks}\ncall: {calls}\n{text}"


QWEN_XML = QwenXmlFormat()

# Qwen3-Coder often leaves out the opening tag, and sometimes a closing one.
_BARE = re.compile(r"<function=")
_OPENING = re.compile(r"\s*<function=([^>\n]+)>")
_CLOSINGS = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"(.*?)</function>\s*</tool_call>",
        r"(.*?)</function>",
        r"(.*?)</tool_call>",
    )
)
_PARAMETER = re.compile(
    r"\s*<parameter=([^>\n]+)>\n?(.*?)\n?</parameter>(?=\s*(?:<parameter=|\Z))", re.DOTALL
)


def _read_block(
    text: str, start: int, schemas: Mapping[str, Mapping[str, Any]], *, opened: bool
) -> Block | None:
    opening = _OPENING.match(text, start)
    if opening is None or not (opened or opening.group(1) in schemas):
        return None
    name = opening.group(1)
    # A value may hold a closing tag, so the longest form is tried first.
    for closing in _CLOSINGS:
        body = closing.match(text, opening.end())
        arguments = None if body is None else _read_arguments(body.group(1), schemas.get(name, {}))
        if body is not None and arguments is not None:
            call = new_call(name, arguments)
            return None if call is None else ([call], body.end())
    return None


def _read_arguments(body: str, schemas: Mapping[str, Any]) -> dict[str, Any] | None:
    arguments: dict[str, Any] = {}
    position = 0
    while (parameter := _PARAMETER.match(body, position)) is not None:
        key, value = parameter.groups()
        arguments[key] = typed_value(value, schemas.get(key, {}))
        position = parameter.end()
    return None if body[position:].strip() else arguments


def _function_grammar(tool: Tool) -> str:
    function = tool["function"]
    parameters = function.get("parameters") or {}
    required = schema_items(parameters.get("required"))
    pieces = [literal(f"<function={function['name']}>\n")]
    for key, schema in parameter_schemas(tool).items():
        lenient = function.get("strict") is not True
        value = _value_grammar(schema, parameters, lenient=lenient)
        opening = literal(f"<parameter={key}>\n")
        piece = f'({opening} {value} "\\n")'
        pieces.append(piece if key in required else f"{piece}?")
    return " ".join([*pieces, literal("</function>")])


def _value_grammar(schema: Any, parameters: Mapping[str, Any], *, lenient: bool) -> str:
    """Write a value with its closing tag: texts as they are, everything else as JSON."""
    closing = literal("\n</parameter>")
    values = schema_items(schema.get("enum")) if isinstance(schema, Mapping) else []
    types = schema_types(schema)
    if types == {"string"} and values and all(isinstance(value, str) for value in values):
        return f"({' | '.join(map(literal, values))}) {closing}"
    if not types or "string" in types:
        return "text"
    definitions = {key: parameters[key] for key in ("$defs", "definitions") if key in parameters}
    return f"{tool_argument({**schema, **definitions}, lenient=lenient)} {closing}"
