"""The form in which a chat template wants tools, calls and thinking, found by rendering probes.

Published templates differ in what they accept: arguments as an object or as text, ids of nine
characters, tools under another name. Nothing but a template says which, so small conversations
are rendered in each form until one shows what it should.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from art.chat.reasoning import ReasoningTags
from art.chat.rendering import Rendering
from art.chat.tool_calls.protocol import Tool

ToolsPlace = Literal["tools", "xml_tools", "system message"]
ReasoningPlace = Literal["reasoning_content", "reasoning", "thinking", "blocks", "inline", "none"]

# No published template writes these texts.
CONTENT, REASONING, ARGUMENT, CALL_ID = "answer-7f3a", "reason-7f3a", "argument-7f3a", "callprobe"
_CALL, _RESULT = "probe_call", "result-7f3a"
EMPTY_BLOCKS = [{"type": "text", "text": ""}]
USER = {"role": "user", "content": "u"}
TOOL_RESULT = {"role": "tool", "content": _RESULT, "name": _CALL, "tool_call_id": CALL_ID}
_TOOL: dict[str, Any] = {
    "name": "probe_tool",
    "description": "d",
    "parameters": {"type": "object", "properties": {}},
}


@dataclass(frozen=True, slots=True)
class CallForm:
    """The form of an assistant's message with tool calls.

    Attributes:
        arguments_as_text: Arguments are JSON text instead of an object.
        short_ids: Ids have nine characters.
    """

    arguments_as_text: bool = False
    short_ids: bool = False


@dataclass(frozen=True, slots=True)
class TemplateTraits:
    """The form in which one template wants a conversation.

    Attributes:
        tools_place: The variable or message that tools go to; ``None`` where none are shown.
        whole_tools: A tool without a description or parameters is refused.
        call_form: The form of calls; ``None`` where the template leaves calls out.
        several_calls: The template shows every call of a message, not only the first one.
        reasoning_place: The field of a message that thinking goes to, ``blocks`` of its content,
            ``inline`` in its text, or ``none`` where the template takes thinking away.
        content_beside_reasoning: A message with a call may have content and thinking.
        empty_content_as_block: A message that says nothing is refused as an empty text.
        tags: The tags around thinking.
    """

    tools_place: ToolsPlace | None
    whole_tools: bool
    call_form: CallForm | None
    several_calls: bool
    reasoning_place: ReasoningPlace
    content_beside_reasoning: bool
    empty_content_as_block: bool
    tags: ReasoningTags


def find_traits(rendering: Rendering, tags: ReasoningTags) -> TemplateTraits:
    """Probe a template.

    Args:
        rendering: The template.
        tags: The tags around thinking.
    """
    tools_place = _find_tools_place(rendering)
    call_form = _find_call_form(rendering, tools_place)
    reasoning_place, tags = _find_reasoning(rendering, call_form, tags)
    return TemplateTraits(
        tools_place,
        _wants_whole_tools(rendering, tools_place),
        call_form,
        call_form is None or _shows_several_calls(rendering, call_form),
        reasoning_place,
        _allows_content(rendering, call_form, reasoning_place),
        _refuses_empty_content(rendering),
        tags,
    )


def placed_tools(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Tool] | None, place: ToolsPlace | None
) -> tuple[list[dict[str, Any]], Sequence[Tool] | None, dict[str, Any]]:
    """Put tools where a template looks for them.

    Returns:
        The messages, the template's ``tools``, and further variables.
    """
    plain = [dict(message) for message in messages]
    if not tools or place is None:
        return plain, None, {}
    if place == "tools":
        return plain, tools, {}
    if place == "xml_tools":
        return plain, None, {"xml_tools": [dict(tool) for tool in tools]}
    if not plain or plain[0]["role"] != "system":
        plain.insert(0, {"role": "system", "content": ""})
    plain[0]["tools"] = json.dumps([tool["function"] for tool in tools], ensure_ascii=False)
    return plain, None, {}


def probe_call(form: CallForm, **fields: Any) -> dict[str, Any]:
    """Make an assistant's message with one tool call, whose argument is :data:`ARGUMENT`."""
    arguments = {"key": ARGUMENT}
    call = {
        "id": CALL_ID if form.short_ids else f"{CALL_ID}-longer",
        "type": "function",
        "function": {
            "name": _CALL,
            "arguments": json.dumps(arguments) if form.arguments_as_text else arguments,
        },
    }
    return {"role": "assistant", "content": "", **fields, "tool_calls": [call]}


def _tool(**changes: Any) -> Tool:
    return {"type": "function", "function": {**_TOOL, **changes}}


def _find_tools_place(rendering: Rendering) -> ToolsPlace | None:
    places: tuple[ToolsPlace, ...] = ("tools", "xml_tools", "system message")
    for place in places:
        messages, tools, variables = placed_tools([USER], [_tool()], place)
        text = rendering.try_render(messages, tools, variables=variables)
        if text is not None and _TOOL["name"] in text:
            return place
    return None


def _wants_whole_tools(rendering: Rendering, place: ToolsPlace | None) -> bool:
    bare: Tool = {"type": "function", "function": {"name": _TOOL["name"]}}
    messages, tools, variables = placed_tools([USER], [bare], place)
    return rendering.try_render(messages, tools, variables=variables) is None


def _find_call_form(rendering: Rendering, place: ToolsPlace | None) -> CallForm | None:
    for short_ids, as_text in itertools.product((False, True), repeat=2):
        form = CallForm(as_text, short_ids)
        conversation = [USER, probe_call(form), {**TOOL_RESULT, "tool_call_id": _id(form)}]
        messages, tools, variables = placed_tools(conversation, [_tool()], place)
        text = rendering.try_render(messages, tools, variables=variables)
        if text is not None and _CALL in text and ARGUMENT in text:
            return form
    return None


def _shows_several_calls(rendering: Rendering, form: CallForm) -> bool:
    message = probe_call(form)
    call = message["tool_calls"][0]
    second = {**call, "function": {**call["function"], "name": f"{_CALL}_2"}}
    message["tool_calls"] = [call, second]
    result = {**TOOL_RESULT, "tool_call_id": _id(form)}
    text = rendering.try_render([USER, message, result, result])
    return text is not None and f"{_CALL}_2" in text


def _id(form: CallForm) -> str:
    return CALL_ID if form.short_ids else f"{CALL_ID}-longer"


def _find_reasoning(
    rendering: Rendering, form: CallForm | None, tags: ReasoningTags
) -> tuple[ReasoningPlace, ReasoningTags]:
    plain = {"role": "assistant", "content": CONTENT}
    fields: tuple[ReasoningPlace, ...] = ("reasoning_content", "reasoning", "thinking")
    for field in fields:
        probes = [[USER, {**plain, field: REASONING}]]
        if form is not None:
            result = {**TOOL_RESULT, "tool_call_id": _id(form)}
            probes += [
                [USER, probe_call(form, content=content, **{field: REASONING}), result]
                for content in (CONTENT, "")
            ]
        for probe in probes:
            text = rendering.try_render(probe)
            if text is not None and REASONING in text:
                return field, _measured(text, tags)
    blocks = [{"type": "thinking", "thinking": REASONING}, {"type": "text", "text": CONTENT}]
    text = rendering.try_render([USER, {**plain, "content": blocks}])
    if text is not None and tags.opening + REASONING in text:
        return "blocks", _measured(text, tags)
    tags = replace(tags, separator=_separator_of_no_thinking(rendering, tags) or tags.separator)
    inline = {**plain, "content": tags.join(REASONING, CONTENT)}
    text = rendering.try_render([USER, inline, USER])
    return ("none" if text is not None and REASONING not in text else "inline"), tags


def _allows_content(
    rendering: Rendering, form: CallForm | None, reasoning_place: ReasoningPlace
) -> bool:
    if form is None:
        return True
    message = probe_call(form, content=CONTENT, **{reasoning_place: REASONING})
    result = {**TOOL_RESULT, "tool_call_id": _id(form)}
    return rendering.try_render([USER, message, result]) is not None


def _refuses_empty_content(rendering: Rendering) -> bool:
    empty = rendering.try_render([USER, {"role": "assistant", "content": ""}])
    as_block = rendering.try_render([USER, {"role": "assistant", "content": EMPTY_BLOCKS}])
    return empty is None and as_block is not None


def _measured(text: str, tags: ReasoningTags) -> ReasoningTags:
    """Read the white space at the tags from a rendered probe."""
    after = text.partition(REASONING)[2]
    padded = after.startswith("\n")
    rest = after.partition(tags.closing)[2]
    separator = _newlines(rest) if CONTENT in rest else tags.separator
    return replace(tags, padded=padded, separator=separator)


def _separator_of_no_thinking(rendering: Rendering, tags: ReasoningTags) -> str:
    """Read the newlines after the thinking that a prompt leaves empty, where one can be had."""
    text = rendering.try_render(
        [USER], add_generation_prompt=True, variables={"enable_thinking": False}
    )
    before, closing, after = (text or "").rpartition(tags.closing)
    return _newlines(after) if closing and before.rstrip().endswith(tags.opening.rstrip()) else ""


def _newlines(text: str) -> str:
    return text[: len(text) - len(text.lstrip("\n"))]
