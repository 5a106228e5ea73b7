"""The protocol of a tool-call format, and the records that it reads and returns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

# A tool in the OpenAI API's form: {"type": "function", "function": {"name": …, …}}.
Tool = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool.

    Attributes:
        name: The tool's name.
        arguments: The text of a JSON object.
        id: The call's id, where the format has the model write one.
    """

    name: str
    arguments: str
    id: str | None = None


@dataclass(frozen=True, slots=True)
class ParsedText:
    """The parts of an assistant's message: text, thinking and tool calls.

    Attributes:
        content: The text without the thinking and without the tool calls.
        tool_calls: The calls in order.
        reasoning: The thinking; ``None`` where the model did not think.
    """

    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str | None = None


class ToolCallFormat(Protocol):
    """The way in which one family of chat templates writes tool calls."""

    @property
    def template_mark(self) -> str:
        """Text by which a chat template that teaches this format is known."""
        ...

    @property
    def markers(self) -> tuple[str, ...]:
        """Texts that must survive decoding, even where they are special tokens."""
        ...

    def parse(self, text: str, tools: Sequence[Tool]) -> ParsedText:
        """Separate the well-formed tool calls from the rest of a message.

        Text that does not parse stays content, so nothing that a model wrote is lost.

        Args:
            text: The message, without the token that ended its turn.
            tools: The tools that the model was offered.

        Returns:
            The calls in order, and all other text as content.
        """
        ...

    def grammar(
        self, tools: Sequence[Tool], *, parallel: bool, token_ids: Mapping[str, int]
    ) -> str | None:
        """Write the grammar of a message that is nothing but calls of some tools.

        Args:
            tools: The tools to choose from, at least one.
            parallel: Whether more than one call is allowed.
            token_ids: Those of :attr:`markers` that are tokens of the model, with their ids.

        Returns:
            Lark rules (:mod:`art.chat.lark`) of which ``tool_calls`` is the message; ``None`` where
            the format has no grammar.
        """
        ...


@runtime_checkable
class CallWriter(Protocol):
    """A format that can write calls itself.

    It serves chat templates that show tools but leave calls out of the history.
    """

    def write(self, calls: Sequence[ToolCall]) -> str:
        """Write calls as the model does.

        Args:
            calls: At least one call.
        """
        ...
