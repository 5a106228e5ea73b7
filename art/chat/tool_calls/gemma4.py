"""The format of Gemma 4: ``<|tool_call>call:name{key:<|"|>text<|"|>,other:1}<tool_call|>``."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from art.chat.tool_calls.gemma4_grammar import CLOSE, OPEN, QUOTE, calls_grammar
from art.chat.tool_calls.json_calls import decode_json, new_call, skip_space
from art.chat.tool_calls.marked_calls import parse_marked_calls
from art.chat.tool_calls.protocol import ParsedText, Tool, ToolCall

_MAX_DEPTH = 64


class Gemma4Format:
    """A name and an object whose keys are bare and whose strings stand between ``<|"|>``."""

    template_mark = "<|tool_call>call:"
    markers = (OPEN, CLOSE, QUOTE)

    def parse(self, text: str, tools: Sequence[Tool]) -> ParsedText:
        """See :meth:`art.chat.tool_calls.protocol.ToolCallFormat.parse`."""
        return parse_marked_calls(text, OPEN, _read_call)

    def grammar(
        self, tools: Sequence[Tool], *, parallel: bool, token_ids: Mapping[str, int]
    ) -> str:
        """See :meth:`art.chat.tool_calls.protocol.ToolCallFormat.grammar`."""
        return calls_grammar(tools, parallel=parallel, token_ids=token_ids)


GEMMA4 = Gemma4Format()

_HEAD = re.compile(r"\s*(?:call:)?\s*([^\s{<:]+)\s*")
_BARE_KEY = re.compile(r"\s*([^:{}\[\],]+?)\s*:")
_WORD = re.compile(r"\s*([^,\]}<]+)")
_WORDS = {"true": True, "false": False, "null": None, "none": None}


class _Malformed(Exception):
    """The text is no value of this format."""


def _read_call(text: str, start: int) -> tuple[ToolCall, int] | None:
    head = _HEAD.match(text, start)
    if head is None:
        return None
    arguments: Any = {}
    position = head.end()
    if text.startswith("{", position):
        try:
            arguments, position = _read_object(text, position, 0)
        except _Malformed:
            return None
    end = skip_space(text, position)
    closed = text.startswith(CLOSE, end)
    # A model may end its turn, or begin the next call, without the closing marker.
    if not closed and not (arguments and (end == len(text) or text.startswith(OPEN, end))):
        return None
    call = new_call(head.group(1), arguments)
    return None if call is None else (call, end + len(CLOSE) if closed else end)


def _read_value(text: str, start: int, depth: int) -> tuple[Any, int]:
    start = skip_space(text, start)
    if depth > _MAX_DEPTH:
        raise _Malformed
    if text.startswith(QUOTE, start):
        return _read_text(text, start)
    if text.startswith("{", start):
        return _read_object(text, start, depth + 1)
    if text.startswith("[", start):
        return _read_list(text, start, depth + 1)
    decoded = decode_json(text, start)
    if decoded is not None:
        return decoded
    word = _WORD.match(text, start)
    if word is None or word.group(1).strip().lower() not in _WORDS:
        raise _Malformed
    return _WORDS[word.group(1).strip().lower()], word.end()


def _read_text(text: str, start: int) -> tuple[str, int]:
    end = text.find(QUOTE, start + len(QUOTE))
    if end < 0:
        raise _Malformed
    return text[start + len(QUOTE) : end], end + len(QUOTE)


def _read_object(text: str, start: int, depth: int) -> tuple[dict[str, Any], int]:
    members: dict[str, Any] = {}
    position = skip_space(text, start + 1)
    if text.startswith("}", position):
        return members, position + 1
    while True:
        key, position = _read_key(text, position)
        members[key], position = _read_value(text, position, depth)
        position = skip_space(text, position)
        if text.startswith("}", position):
            return members, position + 1
        if not text.startswith(",", position):
            raise _Malformed
        position += 1


def _read_key(text: str, start: int) -> tuple[str, int]:
    start = skip_space(text, start)
    if text.startswith(QUOTE, start):
        key, position = _read_text(text, start)
    elif (decoded := decode_json(text, start)) is not None and isinstance(decoded[0], str):
        key, position = decoded
    else:
        bare = _BARE_KEY.match(text, start)
        if bare is None:
            raise _Malformed
        return bare.group(1), bare.end()
    position = skip_space(text, position)
    if not text.startswith(":", position):
        raise _Malformed
    return key, position + 1


def _read_list(text: str, start: int, depth: int) -> tuple[list[Any], int]:
    items: list[Any] = []
    position = skip_space(text, start + 1)
    if text.startswith("]", position):
        return items, position + 1
    while True:
        item, position = _read_value(text, position, depth)
        items.append(item)
        position = skip_space(text, position)
        if text.startswith("]", position):
            return items, position + 1
        if not text.startswith(",", position):
            raise _Malformed
        position += 1
