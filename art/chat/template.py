"""Conversations to token ids by the tokenizer's own chat template, and token ids to text."""

import inspect
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from art.chat.tool_calls.protocol import Tool, ToolCallFormat
from art.chat.tool_calls.registry import tool_call_format
from art.errors import ChatTemplateError, ConfigurationError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# A message in the OpenAI API's form, with plain text or None as its content.
Message = Mapping[str, Any]


class ChatTemplate:
    """The chat template of one model, with its tokenizer.

    Args:
        tokenizer: The model's tokenizer.
        template: Jinja text to use instead of the tokenizer's own.
        template_kwargs: Variables for the template, such as ``{"enable_thinking": False}``.

    Raises:
        ConfigurationError: The tokenizer has no chat template and none is given.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        *,
        template: str | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._template = template if template is not None else _own_template(tokenizer)
        self._template_kwargs = dict(template_kwargs or {})
        self.tool_call_format: ToolCallFormat | None = tool_call_format(self._template)

    def prompt_token_ids(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """Render a conversation, up to where the assistant's next message begins.

        Args:
            messages: In the OpenAI API's form. ``arguments`` of tool calls may be JSON text;
                templates want objects, so they are parsed.
            tools: The tools on offer.
            template_kwargs: Variables for the template; they override those of the constructor.

        Returns:
            The prompt's token ids.

        Raises:
            ChatTemplateError: The template refuses the conversation, or does not show tools.
        """
        if tools and not self.renders_tools:
            raise ChatTemplateError(
                "the chat template of this model does not show tools to it; describe the tools in "
                "a message instead, or set chat_template in the model's config"
            )
        text = self._render(messages, tools, add_generation_prompt=True, extra=template_kwargs)
        return self._encode(text)

    def example_token_ids(
        self, messages: Sequence[Message], tools: Sequence[Tool] | None = None
    ) -> tuple[list[int], list[int]]:
        """Tokenize a conversation that ends with an assistant's message, as an example to imitate.

        Args:
            messages: In the OpenAI API's form, the last one an assistant's.
            tools: The tools on offer.

        Returns:
            The ids of the prompt, as :meth:`prompt_token_ids` gives them, and those of the last
            message with the token that ends it. Where the template opens a new message with more
            than it keeps of a complete one, such as a tag for reasoning, that is left out.

        Raises:
            ChatTemplateError: The template refuses the conversation, or does not show tools; or
                it renders what came before otherwise than before the last message.
        """
        *before, last = messages
        if tools and not self.renders_tools:
            raise ChatTemplateError("the chat template of this model does not show tools to it")
        opened = self._render(before, tools, add_generation_prompt=True)
        whole = self._render([*before, last], tools)
        pairs = enumerate(zip(opened, whole, strict=False))
        shared = next((place for place, (a, b) in pairs if a != b), min(len(opened), len(whole)))
        prompt = whole[:shared]
        if len(prompt) < len(self._render(before, tools)):
            raise ChatTemplateError(
                "the chat template renders what comes before an assistant's message otherwise once "
                "the message is there, so no prompt leads to it"
            )
        completion = self._encode(whole[len(prompt) :])
        ends = [place for place, each in enumerate(completion) if each in self.end_of_turn_ids]
        # What follows the end, such as a line break, is never sampled.
        completion = completion[: ends[-1] + 1] if ends else [*completion, self.end_of_turn_ids[0]]
        return self._encode(prompt), completion

    @cached_property
    def renders_tools(self) -> bool:
        """``True`` where the template shows tools to the model and their calls can be parsed."""
        if self.tool_call_format is None:
            return False
        messages = [{"role": "user", "content": "u"}]
        tool = {"type": "function", "function": {"name": "probe", "parameters": {}}}
        return self._render(messages, [tool]) != self._render(messages, None)

    @cached_property
    def end_of_turn_ids(self) -> tuple[int, ...]:
        """The token ids that end an assistant's message.

        The first is the token that the template writes after such a message; the tokenizer's own
        end of sequence follows where it is another one.

        Raises:
            ChatTemplateError: There is neither.
        """
        marker = "answer-7f3a"
        text = self._render(
            [{"role": "user", "content": "u"}, {"role": "assistant", "content": marker}], None
        )
        after = self._encode(text.rpartition(marker)[2])[:1]
        ids = [token_id for token_id in after if token_id in self._special_ids]
        end_of_sequence = self._tokenizer.eos_token_id
        if isinstance(end_of_sequence, int) and end_of_sequence not in ids:
            ids.append(end_of_sequence)
        if not ids:
            raise ChatTemplateError(
                "neither the chat template nor the tokenizer has a token that ends a message, so "
                "sampling would never stop; set chat_template in the model's config to one that "
                "writes such a token"
            )
        return tuple(ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Turn sampled token ids into text.

        Args:
            token_ids: Token ids.

        Returns:
            Their text. Special tokens are left out, except those that mark tool calls.
        """
        kept = [token_id for token_id in token_ids if token_id not in self._hidden_ids]
        return self._decode(kept)

    def token_text(self, token_id: int) -> str:
        """The text of one token, special or not."""
        return self._decode([token_id])

    def _decode(self, token_ids: list[int]) -> str:
        text = self._tokenizer.decode(
            token_ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text if isinstance(text, str) else "".join(text)

    def _encode(self, text: str) -> list[int]:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            # JSON inside JSON, such as the arguments of a tool call, can still hold one.
            raise ChatTemplateError(
                f"the messages hold half of a surrogate pair, which no tokenizer takes: {error}"
            ) from error
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    @cached_property
    def _reserved_names(self) -> frozenset[str]:
        parameters = inspect.signature(self._tokenizer.apply_chat_template).parameters
        return frozenset(parameters) - {"documents", "kwargs"}

    @cached_property
    def _special_ids(self) -> frozenset[int]:
        return frozenset(self._tokenizer.all_special_ids)

    @cached_property
    def _hidden_ids(self) -> frozenset[int]:
        markers = self.tool_call_format.markers if self.tool_call_format is not None else ()
        vocabulary = self._tokenizer.get_added_vocab()
        return self._special_ids.difference(vocabulary.get(marker, -1) for marker in markers)

    def _render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] | None,
        *,
        add_generation_prompt: bool = False,
        extra: Mapping[str, Any] | None = None,
    ) -> str:
        reserved = self._reserved_names & {**self._template_kwargs, **(extra or {})}.keys()
        if reserved:
            raise ChatTemplateError(
                f"chat_template_kwargs may not set {sorted(reserved)}; they are variables for the "
                "template, such as enable_thinking"
            )
        try:
            text = self._tokenizer.apply_chat_template(
                [_template_message(message) for message in messages],
                tools=[dict(tool) for tool in tools] if tools else None,
                chat_template=self._template,
                add_generation_prompt=add_generation_prompt,
                tokenize=False,
                **{**self._template_kwargs, **(extra or {})},
            )
        except ChatTemplateError:
            raise
        except Exception as error:
            # A template is a program: what it cannot handle can fail in any way.
            raise ChatTemplateError(
                f"the chat template of this model cannot render the messages: {error!s:.500}"
            ) from error
        return str(text)


def _own_template(tokenizer: "PreTrainedTokenizerBase") -> str:
    try:
        return tokenizer.get_chat_template()
    except ValueError as error:
        raise ConfigurationError(
            "the tokenizer has no chat template, so messages cannot become a prompt; "
            "use an instruct model, or set chat_template in the model's config"
        ) from error


def _template_message(message: Message) -> dict[str, Any]:
    """Convert a message to the form that templates expect: no nulls, arguments as objects."""
    rendered = {key: value for key, value in message.items() if value is not None}
    rendered.setdefault("content", "")
    if "tool_calls" in rendered:
        rendered["tool_calls"] = [_template_tool_call(call) for call in rendered["tool_calls"]]
    return rendered


def _template_tool_call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = dict(call["function"])
    if isinstance(function.get("arguments"), str):
        try:
            function["arguments"] = json.loads(function["arguments"])
        except (ValueError, RecursionError) as error:
            raise ChatTemplateError(
                f"the arguments of the tool call {function.get('name')!r:.60} are not JSON: {error}"
            ) from error
    return {**call, "function": function}
