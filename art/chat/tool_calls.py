"""Tool calls in the text that a model wrote.

A chat template teaches its model one format for tool calls; the format is found from the
template's own text. What does not parse stays in the content: nothing that a model wrote is lost.

The formats are those of the models' published chat templates:

* Hermes (Qwen2.5, Qwen3): ``<tool_call>{"name": …, "arguments": {…}}</tool_call>``
* Qwen XML (Qwen3-Coder, Qwen3.5): ``<tool_call><function=…><parameter=…>…``
* Llama 3 JSON: the whole message is ``{"name": …, "parameters": {…}}``
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

# A tool as the OpenAI API describes it: {"type": "function", "function": {"name": …, …}}.
Tool = Mapping[str, Any]

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of the tool ``name`` with ``arguments``, the text of a JSON object."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ParsedText:
    """A message's text with its tool calls taken out."""

    content: str
    tool_calls: tuple[ToolCall, ...] = ()


class ToolCallFormat(Protocol):
    """How one family of chat templates writes tool calls."""

    @property
    def markers(self) -> tuple[str, ...]:
        """Texts that must survive decoding, even where they are special tokens."""
        ...

    def parse(self, text: str, tools: Sequence[Tool]) -> ParsedText:
        """Take the well-formed tool calls out of ``text``.

        Args:
            text: What the model wrote, without the token that ended its turn.
            tools: The tools it was offered.

        Returns:
            The calls in order, and everything else as content.
        """
        ...


def tool_call_format(chat_template: str) -> ToolCallFormat | None:
    """Find the format that a chat template writes tool calls in.

    Args:
        chat_template: The Jinja text of the template.

    Returns:
        The format, or ``None`` where the template knows none of ours.
    """
    return next((known for mark, known in _FORMAT_OF_MARK if mark in chat_template), None)


class HermesFormat:
    """``<tool_call>`` around a JSON object, or a list of them, with ``arguments``."""

    markers = (_OPEN, _CLOSE)

    def parse(self, text: str, tools: Sequence[Tool]) -> ParsedText:
        """See :meth:`ToolCallFormat.parse`."""
        return _parse_blocks(text, _hermes_block)


class QwenXmlFormat:
    """``<tool_call>`` around ``<function=…>`` with one ``<parameter=…>`` for each argument.

    Values are written as plain text, so their types come from the tools' schemas. A string
    value that itself holds ``</parameter>`` before another tag cannot be told from markup.
    """

    markers = (_OPEN, _CLOSE)

    def parse(self, text: str, tools: Sequence[Tool]) -> ParsedText:
        """See :meth:`ToolCallFormat.parse`."""
        schemas = {tool["function"]["name"]: _parameter_schemas(tool) for tool in tools}
        return _parse_blocks(text, lambda text, start: _xml_block(text, start, schemas))


class Llama3JsonFormat:
    """The whole message is a JSON object with ``name`` and ``parameters``; several by ``;``.

    Any JSON answer could look like that, so the name must be that of a tool on offer.
    """

    markers = ()

    def parse(self, text: str, tools: Sequence[Tool]) -> ParsedText:
        """See :meth:`ToolCallFormat.parse`."""
        names = {tool["function"]["name"] for tool in tools}
        calls: list[ToolCall] = []
        position = 0
        while True:
            decoded = _decode_json(text, position)
            if decoded is None:
                return ParsedText(text)
            value, position = decoded
            call = _call_from_object(value, "parameters")
            if call is None or call.name not in names:
                return ParsedText(text)
            calls.append(call)
            position = _skip_space(text, position)
            if position == len(text):
                return ParsedText("", tuple(calls))
            if text[position] != ";":
                return ParsedText(text)
            position += 1


HERMES = HermesFormat()
QWEN_XML = QwenXmlFormat()
LLAMA3_JSON = Llama3JsonFormat()

# The first mark found in a chat template decides: Qwen's XML templates hold both tags.
_FORMAT_OF_MARK: tuple[tuple[str, ToolCallFormat], ...] = (
    ("<function=", QWEN_XML),
    (_OPEN, HERMES),
    ('"parameters": ', LLAMA3_JSON),
)

# Reads the block whose opening tag ends at a position: its calls and where it ends, or None.
_BlockReader = Callable[[str, int], tuple[list[ToolCall], int] | None]


def _parse_blocks(text: str, read_block: _BlockReader) -> ParsedText:
    content: list[str] = []
    calls: list[ToolCall] = []
    position = 0
    while (start := text.find(_OPEN, position)) >= 0:
        block = read_block(text, start + len(_OPEN))
        if block is None:
            content.append(text[position : start + len(_OPEN)])
            position = start + len(_OPEN)
            continue
        # Templates write one newline before a block: it separates, and is not content.
        content.append(text[position:start].removesuffix("\n"))
        calls += block[0]
        position = block[1]
    content.append(text[position:])
    return ParsedText("".join(content), tuple(calls))


def _hermes_block(text: str, start: int) -> tuple[list[ToolCall], int] | None:
    decoded = _decode_json(text, start)
    if decoded is None:
        return None
    value, end = decoded
    end = _skip_space(text, end)
    if not text.startswith(_CLOSE, end):
        return None
    objects = value if isinstance(value, list) else [value]
    calls = [_call_from_object(item, "arguments") for item in objects]
    well_formed = [call for call in calls if call is not None]
    if not calls or len(well_formed) < len(calls):
        return None
    return well_formed, end + len(_CLOSE)


_FUNCTION = re.compile(r"\s*<function=([^>\n]+)>(.*?)</function>\s*</tool_call>", re.DOTALL)
_PARAMETER = re.compile(
    r"\s*<parameter=([^>\n]+)>\n?(.*?)\n?</parameter>(?=\s*(?:<parameter=|\Z))", re.DOTALL
)


def _xml_block(
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
    call = _tool_call(name, arguments)
    return None if call is None else ([call], function.end())


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
    decoded = _decode_json(text, 0)
    if decoded is None or _skip_space(text, decoded[1]) != len(text):
        return text
    value = decoded[0]
    if isinstance(value, str):
        return text
    return value if not types or _json_types(value) & types else text


def _schema_types(schema: Any) -> set[str]:
    if not isinstance(schema, Mapping):
        return set()
    stated = schema.get("type")
    types = {stated} if isinstance(stated, str) else set(stated or ())
    for option in (*(schema.get("anyOf") or ()), *(schema.get("oneOf") or ())):
        types |= _schema_types(option)
    if not types and all(isinstance(value, str) for value in schema.get("enum", (0,))):
        return {"string"}
    return types


def _json_types(value: Any) -> set[str]:
    if isinstance(value, dict):
        return {"object"}
    if isinstance(value, list):
        return {"array"}
    return {"number", "integer"} if isinstance(value, int) else {"number"}


def _call_from_object(value: Any, arguments_key: str) -> ToolCall | None:
    if not isinstance(value, dict) or not isinstance(value.get(arguments_key), dict):
        return None
    name = value.get("name")
    if not isinstance(name, str) or not name:
        return None
    return _tool_call(name, value[arguments_key])


def _tool_call(name: str, arguments: dict[str, Any]) -> ToolCall | None:
    call = ToolCall(name, json.dumps(arguments, ensure_ascii=False))
    try:
        # JSON can escape half a surrogate pair, which no UTF-8 response can carry.
        (call.name + call.arguments).encode()
    except UnicodeEncodeError:
        return None
    return call


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def _decode_json(text: str, start: int) -> tuple[Any, int] | None:
    """Decode the JSON value at ``start``: the value and where it ends, or ``None``."""
    try:
        return _DECODER.raw_decode(text, _skip_space(text, start))
    except (ValueError, RecursionError):
        return None


def _skip_space(text: str, start: int) -> int:
    while start < len(text) and text[start].isspace():
        start += 1
    return start
