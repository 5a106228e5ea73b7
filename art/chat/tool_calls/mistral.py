"""The formats of Mistral: ``[TOOL_CALLS]`` and a list of calls, or a name and its arguments."""

import json
import re
from collections.abc import Mapping, Sequence

from art.chat.lark import literal, marker
from art.chat.tool_calls.json_calls import (
    arguments_grammar,
    call_from_object,
    decode_json,
    new_call,
    object_of_arguments,
    skip_space,
)
from art.chat.tool_calls.protocol import ParsedText, Tool, ToolCall

_BEGIN = "[TOOL_CALLS]"
_ID_KEY, _QUOTE = ', "id": "', '"'


class MistralFormat:
    """All calls come last in a message.

    Models up to Mistral Nemo write ``[TOOL_CALLS][{"name": …, "arguments": {…}, "id": …}]``,
    Mistral Small 3.2 ``[TOOL_CALLS]name[CALL_ID]id[ARGS]{…}`` for each call, later ones the same
    without the id.
    """

    template_mark = _BEGIN
    markers = (_BEGIN, "[CALL_ID]", "[ARGS]")

    def parse(self, text: str, tools: Sequence[Tool]) -> ParsedText:
        """See :meth:`art.chat.tool_calls.protocol.ToolCallFormat.parse`."""
        content, begin, inside = text.partition(_BEGIN)
        calls = (_read_list(inside) or _read_named(inside)) if begin else None
        return ParsedText(text) if calls is None else ParsedText(content, tuple(calls))

    def grammar(
        self, tools: Sequence[Tool], *, parallel: bool, token_ids: Mapping[str, int]
    ) -> str:
        """See :meth:`art.chat.tool_calls.protocol.ToolCallFormat.grammar`."""
        begin = marker(_BEGIN, token_ids)
        call_id = f"({literal(_ID_KEY)} ID {literal(_QUOTE)})?"
        closing = literal("}")
        objects, named = [], []
        for function in (tool["function"] for tool in tools):
            arguments = arguments_grammar(function)
            name = json.dumps(function["name"], ensure_ascii=False)
            head = literal(f'{{"name": {name}, "arguments": ')
            objects.append(f"{head} {arguments} {call_id} {closing}")
            mark = marker("[ARGS]", token_ids)
            named.append(f"{literal(function['name'])} id? {mark} {arguments}")
        more = ' (", " object)*' if parallel else ""
        rules = [
            f'list: {begin} "[" object{more} "]"',
            f"object: {' | '.join(objects)}",
            "ID: /[a-zA-Z0-9]{9}/",
        ]
        # Where the arguments have a marker of their own, the model may write the later forms.
        if "[ARGS]" not in token_ids:
            return "\n".join(["tool_calls: list", *rules])
        calls = "named+" if parallel else "named"
        return "\n".join(
            [
                f"tool_calls: list | {calls}",
                *rules,
                f"named: {begin} ({' | '.join(named)})",
                f"id: {marker('[CALL_ID]', token_ids)} ID",
            ]
        )


MISTRAL = MistralFormat()

_HEAD = re.compile(r"\s*(?:\[TOOL_CALLS\])?\s*([^\s\[{]+)\s*(?:\[CALL_ID\](\w+))?\s*(?:\[ARGS\])?")


def _read_list(text: str) -> list[ToolCall] | None:
    decoded = decode_json(text, 0)
    if decoded is None or skip_space(text, decoded[1]) != len(text):
        return None
    objects = decoded[0] if isinstance(decoded[0], list) else [decoded[0]]
    calls = [call_from_object(each) for each in objects]
    well_formed = [call for call in calls if call is not None]
    return well_formed if well_formed and len(well_formed) == len(calls) else None


def _read_named(text: str) -> list[ToolCall] | None:
    calls: list[ToolCall] = []
    position = 0
    while skip_space(text, position) < len(text):
        head = _HEAD.match(text, position)
        if head is None:
            return None
        position = skip_space(text, head.end())
        # Arguments may be absent, but then the name must end with a marker.
        bare = position == len(text) or text.startswith(_BEGIN, position)
        if bare and not head.group().rstrip().endswith("]"):
            return None
        decoded = ({}, position) if bare else decode_json(text, position)
        arguments = None if decoded is None else object_of_arguments(decoded[0])
        if decoded is None or arguments is None:
            return None
        call = new_call(head.group(1), arguments, head.group(2))
        if call is None:
            return None
        calls.append(call)
        position = decoded[1]
    return calls or None
