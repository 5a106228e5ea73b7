"""Conversations to token ids by the tokenizer's own chat template, and token ids to messages."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from art.chat.history import Message, template_messages, template_tools
from art.chat.lark import literal
from art.chat.reasoning import ReasoningTags, reasoning_tags
from art.chat.rendering import Rendering
from art.chat.tool_calls.harmony import HARMONY
from art.chat.tool_calls.protocol import ParsedText, Tool, ToolCallFormat
from art.chat.tool_calls.registry import tool_call_format
from art.chat.traits import TemplateTraits, find_traits, placed_tools
from art.chat.turn_ends import turn_end_ids
from art.errors import ChatTemplateError, ConfigurationError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["ChatTemplate", "Message"]

# Enough of a prompt's end to see whether it begins the thinking.
_PROMPT_END_TOKENS = 16


class ChatTemplate:
    """The chat template of one model, with its tokenizer.

    A tokenizer may have a template of its own for conversations with tools, named ``tool_use``.

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
        plain = template if template is not None else _own_template(tokenizer)
        with_tools = template if template is not None else _own_template(tokenizer, tools=True)
        self._plain = Rendering(tokenizer, plain, template_kwargs or {})
        self._with_tools = (
            self._plain
            if with_tools == plain
            else Rendering(tokenizer, with_tools, template_kwargs or {})
        )
        self.tool_call_format: ToolCallFormat | None = tool_call_format(with_tools)

    def prompt_token_ids(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """Render a conversation, up to where the assistant's next message begins.

        Args:
            messages: In the OpenAI API's form. ``arguments`` of tool calls may be JSON text or
                empty; an assistant's thinking stands in ``reasoning_content``.
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
        return self._encode(self._render(messages, tools, opens=True, variables=template_kwargs))

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
        opened = self._render(before, tools, opens=True)
        whole = self._render([*before, last], tools, opens=False)
        pairs = enumerate(zip(opened, whole, strict=False))
        shared = next((place for place, (a, b) in pairs if a != b), min(len(opened), len(whole)))
        if shared < len(self._render(before, tools, opens=False)):
            raise ChatTemplateError(
                "the chat template renders what comes before an assistant's message otherwise once "
                "the message is there, so no prompt leads to it"
            )
        completion = self._encode(whole[shared:])
        ends = [place for place, each in enumerate(completion) if each in self.end_of_turn_ids]
        # What follows the end, such as a line break, is never sampled.
        completion = completion[: ends[-1] + 1] if ends else [*completion, self.end_of_turn_ids[0]]
        return self._encode(whole[:shared]), completion

    def _render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] | None,
        *,
        opens: bool,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """Render a conversation; where it ``opens``, up to where the assistant's message begins."""
        rendering = self._with_tools if tools else self._plain
        traits = self._tools_traits if tools else self._plain_traits
        placed, shown_tools, of_tools = placed_tools(
            template_messages(messages, traits, self.tool_call_format),
            template_tools(tools, traits),
            traits.tools_place,
        )
        return rendering.render(
            placed,
            shown_tools,
            add_generation_prompt=opens,
            variables={**(variables or {}), **of_tools},
        )

    def parse(
        self, text: str, tools: Sequence[Tool], prompt_token_ids: Sequence[int]
    ) -> ParsedText:
        """Read a sampled message: its thinking, its tool calls and the rest.

        A call that the model drafts while it thinks stays part of the thinking. Text that does
        not parse stays content.

        Args:
            text: The message, without the token that ended its turn.
            tools: The tools on offer; without any, calls stay content.
            prompt_token_ids: The prompt, which may have begun the thinking already.
        """
        if self.tool_call_format is HARMONY:
            # Its channels separate thinking, calls and content themselves.
            return HARMONY.parse(text, tools)
        tags = (self._tools_traits if tools else self._plain_traits).tags
        reasoning, rest = tags.split(text, tags.prompt_end(self._last_text(prompt_token_ids)))
        if tools and self.tool_call_format is not None:
            return replace(self.tool_call_format.parse(rest, tools), reasoning=reasoning)
        return ParsedText(rest, (), reasoning)

    def opening_grammar(self, prompt_token_ids: Sequence[int]) -> str | None:
        """Write the grammar of what precedes a message's content or calls: its thinking.

        Args:
            prompt_token_ids: The prompt, which may have begun the thinking already.

        Returns:
            Lark rules (:mod:`art.chat.lark`) of which ``opening`` is the thinking, and optional
            unless the prompt began it; ``None`` where nothing precedes.
        """
        if self.tool_call_format is HARMONY:
            return HARMONY.opening_grammar(self.marker_token_ids)
        tags = self._tools_traits.tags
        state = tags.prompt_end(self._last_text(prompt_token_ids))
        if state == "not thinking" or (state == "open" and not tags.known):
            return None
        vocabulary = self._tokenizer.get_added_vocab()
        closing = vocabulary.get(tags.closing)
        # No text matches a special token, so a closing tag that is one ends the thinking.
        body = (
            f"thought: /(?s:.*)/ <[{closing}]>"
            if closing is not None
            else f"thought[suffix={literal(tags.closing)}]: /(?s:.*)/"
        )
        if state == "thinking":
            rule = "opening: thought newlines"
        else:
            rule = f"opening: (newlines {self._tag_grammar(tags.opening)} thought newlines)?"
        # Templates of one family differ in them, and no parser minds.
        newlines = 'newlines: ("\\n" | "\\n\\n")?'
        return "\n".join([rule, body, newlines])

    @property
    def content_opening(self) -> str | None:
        """The Lark text of what stands between a message's thinking and its content, if anything.

        Nothing of it stands before calls.
        """
        if self.tool_call_format is HARMONY:
            return HARMONY.content_opening(self.marker_token_ids)
        return None

    def _tag_grammar(self, tag: str) -> str:
        """Write a tag whose pieces may be added tokens."""
        added = frozenset(self._tokenizer.get_added_vocab().values())
        pieces = [
            f"<[{token_id}]>" if token_id in added else literal(self.token_text(token_id))
            for token_id in self._encode(tag.rstrip())
        ]
        return " ".join(pieces)

    @cached_property
    def renders_tools(self) -> bool:
        """``True`` where the template shows tools to the model and their calls can be parsed."""
        return self.tool_call_format is not None and self._tools_traits.tools_place is not None

    @cached_property
    def marker_token_ids(self) -> dict[str, int]:
        """The markers of tool calls that are tokens of the model, with their ids."""
        markers = self.tool_call_format.markers if self.tool_call_format is not None else ()
        vocabulary = self._tokenizer.get_added_vocab()
        return {marker: vocabulary[marker] for marker in markers if marker in vocabulary}

    @cached_property
    def end_of_turn_ids(self) -> tuple[int, ...]:
        """The token ids that end an assistant's turn.

        The first is the special token that the template writes after such a message. Others
        follow where they are different: the one after a tool call, the tokenizer's own end of
        sequence, and ends that no template writes.

        Raises:
            ChatTemplateError: There is none.
        """
        ends = self._special_ids.difference(self._kept_ids)
        ids = turn_end_ids(self._plain, self._plain_traits, self._encode, ends)
        if self._with_tools is not self._plain:
            ids += turn_end_ids(self._with_tools, self._tools_traits, self._encode, ends)
        end_of_sequence = self._tokenizer.eos_token_id
        if isinstance(end_of_sequence, int):
            ids.append(end_of_sequence)
        if not ids:
            raise ChatTemplateError(
                "neither the chat template nor the tokenizer has a token that ends a message, so "
                "sampling would never stop; set chat_template in the model's config to one that "
                "writes such a token"
            )
        return tuple(dict.fromkeys(ids))

    def text_token_ids(self, text: str) -> list[int]:
        """Encode a text that is no conversation, as the tokenizer begins a text (with its BOS).

        Raises:
            ChatTemplateError: The text holds half of a surrogate pair.
        """
        return self._encode(text, add_special_tokens=True)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Turn sampled token ids into text.

        Args:
            token_ids: Token ids.

        Returns:
            Their text. Special tokens are left out, except those that mark tool calls or
            thinking.
        """
        hidden = self._special_ids.difference(self._kept_ids)
        return self._decode([token_id for token_id in token_ids if token_id not in hidden])

    def token_text(self, token_id: int) -> str:
        """The text of one token, special or not."""
        return self._decode([token_id])

    def _last_text(self, token_ids: Sequence[int]) -> str:
        return self._decode(list(token_ids[-_PROMPT_END_TOKENS:]))

    def _decode(self, token_ids: list[int]) -> str:
        text = self._tokenizer.decode(
            token_ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text if isinstance(text, str) else "".join(text)

    def _encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            # JSON inside JSON, such as the arguments of a tool call, can still hold one.
            raise ChatTemplateError(
                f"the messages hold half of a surrogate pair, which no tokenizer takes: {error}"
            ) from error
        return list(self._tokenizer.encode(text, add_special_tokens=add_special_tokens))

    @cached_property
    def _plain_traits(self) -> TemplateTraits:
        return find_traits(self._plain, reasoning_tags(self._plain.template))

    @cached_property
    def _tools_traits(self) -> TemplateTraits:
        if self._with_tools is self._plain:
            return self._plain_traits
        return find_traits(self._with_tools, reasoning_tags(self._with_tools.template))

    @cached_property
    def _special_ids(self) -> frozenset[int]:
        """The special tokens: most published tokenizers name only a few of them."""
        flagged = (
            token_id
            for token_id, token in self._tokenizer.added_tokens_decoder.items()
            if token.special
        )
        return frozenset(self._tokenizer.all_special_ids).union(flagged)

    @cached_property
    def _kept_ids(self) -> frozenset[int]:
        """The tokens that mark tool calls or thinking, which parsing needs."""
        kept = set(self.marker_token_ids.values())
        vocabulary = self._tokenizer.get_added_vocab()
        tags: ReasoningTags = self._tools_traits.tags
        if self.tool_call_format is not HARMONY:
            for tag in (tags.opening, tags.closing):
                kept.update(self._added_ids(tag, vocabulary))
        return frozenset(kept)

    def _added_ids(self, text: str, vocabulary: Mapping[str, int]) -> list[int]:
        """The added tokens in a tag, such as ``<|channel>`` in ``<|channel>thought``."""
        values = frozenset(vocabulary.values())
        return [token_id for token_id in self._encode(text) if token_id in values]


def _own_template(tokenizer: "PreTrainedTokenizerBase", *, tools: bool = False) -> str:
    probe: list[Any] | None = [{"type": "function"}] if tools else None
    try:
        return tokenizer.get_chat_template(tools=probe)
    except ValueError as error:
        raise ConfigurationError(
            "the tokenizer has no chat template, so messages cannot become a prompt; "
            "use an instruct model, or set chat_template in the model's config"
        ) from error
