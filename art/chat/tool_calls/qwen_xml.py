"""The XML format of Qwen3-Coder and Qwen3.5: ``<tool_call><function=…><parameter=…>…``."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from art.chat.lark import literal, tool_argument
from art.chat.tool_calls.json_calls import decode_json, new_call, skip_space
from art.chat.tool_calls.protocol import ParsedText, Tool, ToolCall
from art.chat.tool_calls.tagged_blocks import CLOSE, OPEN, blocks_grammar, parse_blocks


class QwenXmlFormat:
    """``<tool_call>`` around ``<function=…>`` with one ``<parameter=…>`` for each argument.

    Values are written as plain text, so their types come from the tools' schemas. A string
    value that itself holds ``</parameter>`` before another tag cannot be told from markup.
    """

    template_mark = "<function="
    markers = (OPEN, CLOSE)

    def parse(self, text: str, tools: Sequence[Tool]) -> ParsedText:
        """See :meth:`art.chat.tool_calls.protocol.ToolCallFormat.parse`."""
        schemas = {tool["function"]["name"]: _parameter_schemas(tool) for tool in tools}
        return parse_blocks(text, lambda text, start: _read_block(text, start, schemas))

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

_FUNCTION = re.compile(r"\s*<function=([^>\n]+)>(.*?)</function>\s*</tool_call>", re.DOTALL)
_PARAMETER = re.compile(
    r"\s*<parameter=([^>\n]+)>\n?(.*?)\n?</parameter>(?=\s*(?:<parameter=|\Z))", re.DOTALL
)


def _read_block(
    text: str, start: int, schemas: Mapping[str, Mapping[str, Any]]
) -> tuple[list[ToolCall], int] | None:
    function = _FUNCTION.match(text, start)
    if function is None:
        return None
    name, body = function.group(1), function.group(2)
    arguments: dict[str, Any] = {}
    position = 0
    while (parameter := _PARAMETER.match(body, position)) is not None:
        key, value = parameter.groups()
        arguments[key] = _typed_value(value, schemas.get(name, {}).get(key, {}))
        position = parameter.end()
    if body[position:].strip():
        return None
    call = new_call(name, arguments)
    return None if call is None else ([call], function.end())


def _function_grammar(tool: Tool) -> str:
    function = tool["function"]
    parameters = function.get("parameters") or {}
    required = _items(parameters.get("required"))
    pieces = [literal(f"<function={function['name']}>\n")]
    for key, schema in _parameter_schemas(tool).items():
        lenient = function.get("strict") is not True
        value = _value_grammar(schema, parameters, lenient=lenient)
        opening = literal(f"<parameter={key}>\n")
        piece = f'({opening} {value} "\\n")'
        pieces.append(piece if key in required else f"{piece}?")
    return " ".join([*pieces, literal("</function>")])


def _value_grammar(schema: Any, parameters: Mapping[str, Any], *, lenient: bool) -> str:
    """Write a value with its closing tag: texts as they are, everything else as JSON."""
    closing = literal("\n</parameter>")
    values = _items(schema.get("enum")) if isinstance(schema, Mapping) else []
    types = _schema_types(schema)
    if types == {"string"} and values and all(isinstance(value, str) for value in values):
        return f"({' | '.join(map(literal, values))}) {closing}"
    if not types or "string" in types:
        return "text"
    definitions = {key: parameters[key] for key in ("$defs", "definitions") if key in parameters}
    return f"{tool_argument({**schema, **definitions}, lenient=lenient)} {closing}"


def _parameter_schemas(tool: Tool) -> Mapping[str, Any]:
    parameters = tool["function"].get("parameters") or {}
    properties = parameters.get("properties") or {}
    return properties if isinstance(properties, Mapping) else {}


def _typed_value(text: str, schema: Any) -> Any:
    """Read a value written as text, by the types that its JSON schema allows.

    Text that fits no type but a string, or none at all, stays a string: the tool sees what the
    model wrote.
    """
    types = _schema_types(schema)
    if types == {"string"}:
        return text
    # Templates write Python's True, False and None as well as JSON's.
    literal = {"true": True, "false": False, "none": None, "null": None}.get(text.lower(), text)
    if literal is not text:
        wanted = "null" if literal is None else "boolean"
        return literal if not types or wanted in types else text
    decoded = decode_json(text, 0)
    if decoded is None or skip_space(text, decoded[1]) != len(text):
        return text
    value = decoded[0]
    if isinstance(value, str):
        return text
    return value if not types or _json_types(value) & types else text


def _schema_types(schema: Any) -> set[str]:
    if not isinstance(schema, Mapping):
        return set()
    stated = schema.get("type")
    types = {each for each in (stated, *_items(stated)) if isinstance(each, str)}
    for option in (*_items(schema.get("anyOf")), *_items(schema.get("oneOf"))):
        types |= _schema_types(option)
    values = _items(schema.get("enum"))
    if not types and values and all(isinstance(value, str) for value in values):
        return {"string"}
    return types


def _items(value: Any) -> list[Any]:
    """The items of a list; none where it is no list, which a client's schema may be."""
    return value if isinstance(value, list) else []


def _json_types(value: Any) -> set[str]:
    if isinstance(value, dict):
        return {"object"}
    if isinstance(value, list):
        return {"array"}
    return {"number", "integer"} if isinstance(value, int) else {"number"}
