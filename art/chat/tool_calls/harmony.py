"""The harmony format of GPT-OSS: thinking, calls and answers as messages in channels."""

import re
from collections.abc import Mapping, Sequence

from art.chat.lark import literal, marker
from art.chat.tool_calls.json_calls import (
    arguments_grammar,
    decode_json,
    new_call,
    object_of_arguments,
    skip_space,
)
from art.chat.tool_calls.protocol import ParsedText, Tool, ToolCall

_START, _CHANNEL, _MESSAGE = "<|start|>", "<|channel|>", "<|message|>"
_CONSTRAIN, _END = "<|constrain|>", "<|end|>"


class HarmonyFormat:
    """A turn of several messages, which together make one message of the OpenAI API.

    ``analysis`` is thinking, ``final`` and ``commentary`` are content, and a message to
    ``functions.name`` is a call. The prompt ends with ``<|start|>assistant``, so the first
    message begins in the middle of its header. Format: https://cookbook.openai.com/articles/openai-harmony
    """

    template_mark = _CHANNEL
    # Not <|call|> and <|return|>, which end the turn.
    markers = (_START, _CHANNEL, _CONSTRAIN, _MESSAGE, _END)

    def parse(self, text: str, tools: Sequence[Tool]) -> ParsedText:
        """See :meth:`art.chat.tool_calls.protocol.ToolCallFormat.parse`.

        Channels are read where no tools are on offer, too; a call is then content.
        """
        content: list[str] = []
        reasoning: list[str] = []
        calls: list[ToolCall] = []
        position = 0
        for message in _MESSAGES.finditer(text):
            stray, header, body = _parts(text[position : message.start()], message)
            position = message.end()
            content.append(stray)
            call = _read_call(header, body) if tools else None
            if call is not None:
                calls.append(call)
            else:
                (reasoning if _is_thinking(header) else content).append(body)
        content.append(text[position:])
        return ParsedText(
            "\n".join(filter(None, map(_without_markup, content))),
            tuple(calls),
            "\n".join(map(_without_markup, reasoning)) if reasoning else None,
        )

    def grammar(
        self, tools: Sequence[Tool], *, parallel: bool, token_ids: Mapping[str, int]
    ) -> str:
        """See :meth:`art.chat.tool_calls.protocol.ToolCallFormat.grammar`.

        One call, whatever ``parallel`` is, since the turn ends with it. Its recipient stands before
        the channel, as templates write it, or in it, as models do.
        """
        channel, constrain, message = (
            marker(each, token_ids) for each in (_CHANNEL, _CONSTRAIN, _MESSAGE)
        )
        calls = []
        for function in (tool["function"] for tool in tools):
            recipient = f" to=functions.{function['name']}"
            heads = (
                f'{literal(recipient)} {channel} "commentary"',
                f"{channel} {literal('commentary' + recipient)}",
            )
            arguments = arguments_grammar(function)
            calls += [f"{head} kind? {message} {arguments}" for head in heads]
        return f'tool_calls: {" | ".join(calls)}\nkind: " " {constrain}? "json"'

    def opening_grammar(self, token_ids: Mapping[str, int]) -> str:
        """Write the Lark rule ``opening``: the thinking, which may be left out.

        Args:
            token_ids: The markers that are tokens of the model, with their ids.
        """
        start, channel, message, end = (
            marker(each, token_ids) for each in (_START, _CHANNEL, _MESSAGE, _END)
        )
        analysis = f'{channel} "analysis" {message} /(?s:.*)/ {end} {start} "assistant"'
        return f"opening: ({analysis})?"

    def content_opening(self, token_ids: Mapping[str, int]) -> str:
        """Write the Lark text of the header before an answer; see :meth:`opening_grammar`."""
        return f'{marker(_CHANNEL, token_ids)} "final" {marker(_MESSAGE, token_ids)}'


HARMONY = HarmonyFormat()

# A message: its body ends at an end marker, or where a model begins the next one without.
_MESSAGES = re.compile(
    r"<\|message\|>(?P<body>.*?)"
    r"(?:<\|(?:end|call|return)\|>|(?=<\|start\|>|<\|channel\|>)|\Z)",
    re.DOTALL,
)
_RECIPIENT = re.compile(r"\bto=functions\.([^\s<]+)")
# Markers, and the words of a header that was cut off.
_MARKUP = re.compile(
    r"<\|start\|>(?:assistant)?(?: to=[^\s<]+)?|<\|channel\|>(?:analysis|commentary|final)?"
    r"|<\|(?:constrain|message|end|call|return)\|>"
)


def _parts(before: str, message: re.Match[str]) -> tuple[str, str, str]:
    """Separate text that belongs to no message, the message's header, and its body."""
    stray, start, header = before.rpartition(_START)
    if not start and not _RECIPIENT.search(header):
        # No role: the prompt wrote it, or the model left it out.
        stray, channel, header = before.rpartition(_CHANNEL)
        header = channel + header
    return stray, header, message.group("body")


def _without_markup(text: str) -> str:
    """Take markers out of a text: a template refuses them, and they would end its message."""
    return _MARKUP.sub("", text)


def _is_thinking(header: str) -> bool:
    return header.partition(_CHANNEL)[2].lstrip().startswith("analysis")


def _read_call(header: str, body: str) -> ToolCall | None:
    recipient = _RECIPIENT.search(header)
    if recipient is None:
        return None
    decoded = decode_json(body, 0) if body.strip() else ({}, len(body))
    if decoded is None or skip_space(body, decoded[1]) != len(body):
        return None
    arguments = object_of_arguments(decoded[0])
    return None if arguments is None else new_call(recipient.group(1), arguments)
