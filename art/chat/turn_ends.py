"""The tokens that end an assistant's turn, read from what a template writes after one."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

from art.chat.rendering import Rendering
from art.chat.traits import (
    ARGUMENT,
    CONTENT,
    TOOL_RESULT,
    USER,
    TemplateTraits,
    probe_call,
)

# Ends of a turn that no template writes into a conversation: Llama asks for a tool's result.
_UNWRITTEN = ("<|eom_id|>", "<|eom|>")


def turn_end_ids(
    rendering: Rendering,
    traits: TemplateTraits,
    encode: Callable[[str], list[int]],
    ends: Collection[int],
) -> list[int]:
    """Find the tokens that a template writes at the end of an assistant's turn.

    Args:
        rendering: The template.
        traits: The form that it wants.
        encode: The tokenizer.
        ends: The special tokens that may end a turn: those inside of one are left out.

    Returns:
        The first such token after a message and after a tool call, where there are any.
    """
    answer = {"role": "assistant", "content": CONTENT}
    # GLM writes nothing after a message; the next role's token is what ends it.
    probes: list[tuple[str, list[dict[str, Any]]]] = [
        (CONTENT, [USER, answer]),
        (CONTENT, [USER, answer, USER]),
    ]
    found = _first_end(rendering, probes, encode, ends)
    if traits.call_form is not None:
        call = probe_call(traits.call_form)
        result = {**TOOL_RESULT, "tool_call_id": call["tool_calls"][0]["id"]}
        probes = [(ARGUMENT, [USER, call]), (ARGUMENT, [USER, call, result])]
        found += _first_end(rendering, probes, encode, ends)
    found += [ids[0] for text in _UNWRITTEN if len(ids := encode(text)) == 1 and ids[0] in ends]
    return list(dict.fromkeys(found))


def _first_end(
    rendering: Rendering,
    probes: Sequence[tuple[str, Sequence[dict[str, Any]]]],
    encode: Callable[[str], list[int]],
    ends: Collection[int],
) -> list[int]:
    for marker, messages in probes:
        text = rendering.try_render(messages)
        if text is not None and marker in text:
            after = encode(text.rpartition(marker)[2])
            first = next((token_id for token_id in after if token_id in ends), None)
            if first is not None:
                return [first]
    return []
