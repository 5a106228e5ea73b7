"""Messages in the OpenAI API's form, turned into the form that a chat template wants."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from art.chat.tool_calls.protocol import CallWriter, Tool, ToolCall, ToolCallFormat
from art.chat.traits import EMPTY_BLOCKS, CallForm, TemplateTraits
from art.errors import ChatTemplateError

# A message in the OpenAI API's form, with plain text or None as its content.
Message = Mapping[str, Any]


def template_messages(
    messages: Sequence[Message], traits: TemplateTraits, call_format: ToolCallFormat | None
) -> list[dict[str, Any]]:
    """Convert messages for a template.

    Args:
        messages: In the OpenAI API's form. An assistant's thinking stands in
            ``reasoning_content``, or ``reasoning``.
        traits: The form that the template wants.
        call_format: The format of tool calls, where it is known.

    Raises:
        ChatTemplateError: The arguments of a call are not JSON, or the template leaves calls out
            and nothing else can write them.
    """
    if not traits.several_calls:
        messages = _one_call_each(messages)
    return [_template_message(message, traits, call_format) for message in messages]


def template_tools(tools: Sequence[Tool] | None, traits: TemplateTraits) -> Sequence[Tool] | None:
    """Convert tools for a template: some refuse one without a description or parameters."""
    if not tools or not traits.whole_tools:
        return tools
    return [{**tool, "function": _whole_function(tool["function"])} for tool in tools]


def _whole_function(function: Mapping[str, Any]) -> dict[str, Any]:
    given = {key: value for key, value in function.items() if value is not None}
    return {
        "name": given["name"],
        "description": "",
        "parameters": {"type": "object", "properties": {}},
        **given,
    }


def _one_call_each(messages: Sequence[Message]) -> list[Message]:
    """Give each call a message of its own, followed by its result.

    Llama 3 refuses a message with several calls, and GPT-OSS shows only the first of them.
    """
    split: list[Message] = []
    position = 0
    while position < len(messages):
        message = messages[position]
        position += 1
        calls = message.get("tool_calls") or []
        if len(calls) < 2:
            split.append(message)
            continue
        results: list[Message] = []
        while position < len(messages) and messages[position].get("role") == "tool":
            results.append(messages[position])
            position += 1
        for number, call in enumerate(calls):
            own = {**message, "tool_calls": [call]}
            if number:
                own = {"role": message["role"], "tool_calls": [call]}
            answers = [each for each in results if each.get("tool_call_id") == call.get("id")]
            split += [own, *answers]
            results = [each for each in results if each not in answers]
        split += results
    return split


def _template_message(
    message: Message, traits: TemplateTraits, call_format: ToolCallFormat | None
) -> dict[str, Any]:
    # Templates test whether a field is defined, so a null must not be there.
    rendered = {key: value for key, value in message.items() if value is not None}
    rendered.setdefault("content", "")
    form = traits.call_form
    if "tool_call_id" in rendered and form is not None and form.short_ids:
        rendered["tool_call_id"] = _short_id(rendered["tool_call_id"])
    if rendered.get("role") == "assistant":
        _place_calls(rendered, form, call_format)
        _place_reasoning(rendered, traits)
        empty = rendered["content"] == "" and "tool_calls" not in rendered
        if empty and traits.empty_content_as_block:
            rendered["content"] = [*EMPTY_BLOCKS]
    return rendered


def _place_calls(
    message: dict[str, Any], form: CallForm | None, call_format: ToolCallFormat | None
) -> None:
    calls = message.pop("tool_calls", None)
    if not calls:
        return
    if form is None:
        _write_calls(message, calls, call_format)
        return
    message["tool_calls"] = [_template_call(call, form) for call in calls]


def _write_calls(
    message: dict[str, Any],
    calls: Sequence[Mapping[str, Any]],
    call_format: ToolCallFormat | None,
) -> None:
    """Write the calls into the content, for a template that leaves calls out."""
    if not isinstance(call_format, CallWriter):
        raise ChatTemplateError(
            "the chat template of this model leaves tool calls out of the history; write them as "
            "text into the messages, or set chat_template in the model's config to one that shows "
            "them"
        )
    read = [
        ToolCall(call["function"]["name"], json.dumps(_arguments(call), ensure_ascii=False))
        for call in calls
    ]
    written = call_format.write(read)
    message["content"] = "\n".join(filter(None, [message["content"], written]))


def _template_call(call: Mapping[str, Any], form: CallForm) -> dict[str, Any]:
    function = dict(call["function"])
    arguments = _arguments(call)
    if not form.arguments_as_text:
        function["arguments"] = arguments
    elif not isinstance(function.get("arguments"), str) or not arguments:
        # Text stays as it was sampled.
        function["arguments"] = json.dumps(arguments, ensure_ascii=False)
    rendered = {**call, "function": function}
    if form.short_ids and "id" in rendered:
        rendered["id"] = _short_id(rendered["id"])
    return rendered


def _arguments(call: Mapping[str, Any]) -> Any:
    """Decode a call's arguments; none at all are an empty object."""
    function = call["function"]
    arguments = function.get("arguments")
    if arguments is None or (isinstance(arguments, str) and not arguments.strip()):
        return {}
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError) as error:
        raise ChatTemplateError(
            f"the arguments of the tool call {function.get('name')!r:.60} are not JSON: {error}"
        ) from error


def _place_reasoning(message: dict[str, Any], traits: TemplateTraits) -> None:
    found = [message.pop(key, None) for key in ("reasoning_content", "reasoning", "thinking")]
    reasoning = next((each for each in found if isinstance(each, str)), None)
    place, content = traits.reasoning_place, message["content"]
    if reasoning is None or place == "none":
        return
    if place == "blocks":
        thinking = {"type": "thinking", "thinking": reasoning}
        text = [{"type": "text", "text": content}] if content else []
        message["content"] = [thinking, *text]
    elif place == "inline":
        message["content"] = traits.tags.join(reasoning, content or "")
    elif content and "tool_calls" in message and not traits.content_beside_reasoning:
        # GPT-OSS has one text before a call, its thinking.
        message.update({place: "\n".join(filter(None, [reasoning, content])), "content": ""})
    else:
        message[place] = reasoning


def _short_id(call_id: object) -> str:
    """Make an id of nine letters and digits; one that is such an id stays."""
    text = str(call_id)
    if len(text) == 9 and text.isalnum() and text.isascii():
        return text
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:9]
