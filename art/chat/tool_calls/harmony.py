"""The harmony format of GPT-OSS: thinking, calls and answers as messages in channels."""

import re
from collections.abc import Mapping, Sequence

from art.chat.tool_calls.json_calls import decode_json, new_call, object_of_arguments, skip_space
from art.chat.tool_calls.protocol import ParsedText, Tool, ToolCall

_START, _CHANNEL, _MESSAGE = "<|start|>", "<|channel|>", "<|message|>"


class HarmonyFormat:
    """A turn of several messages, which together make one message of the OpenAI API.

    ``analysis`` is thinking, ``final`` and ``commentary`` are content, and a message to
    ``functions.name`` is a call. The prompt ends with ``<|start|>assistant``, so the first
    message begins in the middle of its header. Format: https://cookbook.openai.com/articles/openai-harmony
    """

    template_mark = _CHANNEL
    # Not <|call|> and <|return|>, which end the turn.
    markers = (_START, _CHANNEL, "<|constrain|>", _MESSAGE, "<|end|>")

    def parse(self, text: str, tools: Sequence[Tool]) -> ParsedText:
        """See :meth:`art.chat.tool_calls.protocol.ToolCallFormat.parse`.

        Channels are read where no tools are on offer, too; a call is then content.
        """
        if _MESSAGE not in text:
            return ParsedText(text)
        content: list[str] = []
        reasoning: list[str] = []
        calls: list[ToolCall] = []
        for message in text.split(_START):
            header, begins, rest = message.partition(_MESSAGE)
            if not begins:
                # No message; a role alone, where the turn was cut off, is no text either.
                content.append(message.removeprefix("assistant"))
                continue
            body, *after = _ENDS.split(rest, maxsplit=1)
            call = _read_call(header, body) if tools else None
            if call is not None:
                calls.append(call)
            else:
                (reasoning if _is_thinking(header) else content).append(body)
            content += after
        return ParsedText(
            "\n".join(filter(None, content)),
            tuple(calls),
            "\n".join(reasoning) if reasoning else None,
        )

    def grammar(
        self, tools: Sequence[Tool], *, parallel: bool, token_ids: Mapping[str, int]
    ) -> None:
        """See :meth:`art.chat.tool_calls.protocol.ToolCallFormat.grammar`: there is none."""


HARMONY = HarmonyFormat()

_ENDS = re.compile(r"<\|(?:end|call|return)\|>")
_RECIPIENT = re.compile(r"\bto=functions\.([^\s<]+)")


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
