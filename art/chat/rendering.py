"""One Jinja chat template of a tokenizer, rendered as transformers does."""

import inspect
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from art.chat.tool_calls.protocol import Tool
from art.errors import ChatTemplateError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Rendering:
    """A template with the variables that it always gets.

    Args:
        tokenizer: The tokenizer; its named special tokens are variables of the template.
        template: Jinja text.
        variables: Further variables, such as ``{"enable_thinking": False}``.
    """

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", template: str, variables: Mapping[str, Any]
    ) -> None:
        self._tokenizer = tokenizer
        self.template = template
        self._variables = dict(variables)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Tool] | None = None,
        *,
        add_generation_prompt: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """Render messages that are in the template's own form already.

        Args:
            messages: The messages.
            tools: The tools on offer.
            add_generation_prompt: Whether the assistant's next message is begun.
            variables: Further variables; they override those of the constructor.

        Raises:
            ChatTemplateError: The template refuses the messages, or a variable has the name of
                one of the rendering's arguments.
        """
        merged = {**self._variables, **(variables or {})}
        reserved = self._reserved_names & merged.keys()
        if reserved:
            raise ChatTemplateError(
                f"chat_template_kwargs may not set {sorted(reserved)}; they are variables for the "
                "template, such as enable_thinking"
            )
        try:
            text = self._tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                tools=[dict(tool) for tool in tools] if tools else None,
                chat_template=self.template,
                add_generation_prompt=add_generation_prompt,
                tokenize=False,
                **merged,
            )
        except Exception as error:
            # A template is a program: what it cannot handle can fail in any way.
            raise ChatTemplateError(
                f"the chat template of this model cannot render the messages: {error!s:.500}"
            ) from error
        return str(text)

    def try_render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Tool] | None = None,
        *,
        add_generation_prompt: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> str | None:
        """Render a probe; ``None`` where the template refuses it."""
        try:
            return self.render(
                messages, tools, add_generation_prompt=add_generation_prompt, variables=variables
            )
        except ChatTemplateError:
            return None

    @cached_property
    def _reserved_names(self) -> frozenset[str]:
        parameters = inspect.signature(self._tokenizer.apply_chat_template).parameters
        return frozenset(parameters) - {"documents", "kwargs"}
