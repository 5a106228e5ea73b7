"""The thinking inside a message's text, between the tags of the model's family."""

from dataclasses import dataclass, replace
from typing import Literal

# The state in which a prompt leaves the thinking of the message that it begins.
PromptEnd = Literal["thinking", "not thinking", "open"]


@dataclass(frozen=True, slots=True)
class ReasoningTags:
    """The tags around thinking, and the white space that the template writes at them.

    Attributes:
        opening: The opening tag.
        closing: The closing tag.
        template_mark: Text by which a chat template that knows these tags is known.
        padded: Whether newlines just inside the tags are no part of the thinking.
        separator: Newlines after the closing tag, which are no part of the content.
        known: Whether the template knows the tags. A closing tag without an opening one ends
            thinking only where it does.
    """

    opening: str
    closing: str
    template_mark: str
    padded: bool = True
    separator: str = "\n\n"
    known: bool = True

    def prompt_end(self, prompt: str) -> PromptEnd:
        """Read from the end of a prompt whether the next message begins inside of thinking.

        Args:
            prompt: The prompt's text, special tokens included, or the last part of it.
        """
        end = prompt.rstrip()
        if end.endswith(self.opening.rstrip()):
            return "thinking"
        return "not thinking" if end.endswith(self.closing) else "open"

    def split(self, text: str, prompt_end: PromptEnd) -> tuple[str | None, str]:
        """Separate the thinking of a message from the rest.

        Thinking that never ends reaches to the end of the text. Text before the opening tag stays.

        Args:
            text: The message, as sampled.
            prompt_end: The state in which the prompt leaves the message.

        Returns:
            The thinking, or ``None``, and all other text.
        """
        start, body = text.find(self.opening), len(self.opening)
        end = text.find(self.closing)
        if prompt_end == "thinking":
            # A model may write the tag again that the prompt wrote already.
            start, body = (0, body) if text.lstrip().startswith(self.opening) else (0, 0)
            body += len(text) - len(text.lstrip()) if body else 0
        elif start < 0 or (0 <= end < start):
            if end < 0 or not self.known or prompt_end == "not thinking":
                return None, self._rest(text) if prompt_end == "not thinking" else text
            start, body = 0, 0
        elif text[:start].strip() and (end < 0 or not self.known):
            # An opening tag in the middle of a text, such as in prose about tags.
            return None, text
        end = text.find(self.closing, start + body)
        inside = text[start + body : end if end >= 0 else len(text)]
        before = text[:start] if text[:start].strip() else ""
        after = text[end + len(self.closing) :] if end >= 0 else ""
        return inside.strip("\n") if self.padded else inside, before + self._rest(after)

    def _rest(self, text: str) -> str:
        return text.lstrip("\n") if self.separator else text

    def join(self, reasoning: str, content: str) -> str:
        """Write thinking before content, for templates that have no place for it."""
        padding = "\n" if self.padded else ""
        opening = self.opening.rstrip() + padding
        return f"{opening}{reasoning}{padding}{self.closing}{self.separator}{content}"


# ``<think>`` is what most families write, and what is read where a template names no tags.
THINK = ReasoningTags("<think>", "</think>", "</think>")
TAGS = (
    ReasoningTags("[THINK]", "[/THINK]", "[/THINK]"),
    ReasoningTags("<|channel>thought\n", "<channel|>", "<channel|>"),
    THINK,
)


def reasoning_tags(chat_template: str) -> ReasoningTags:
    """Find the tags around thinking by a chat template's text."""
    known = next((each for each in TAGS if each.template_mark in chat_template), None)
    return known if known is not None else replace(THINK, known=False)
