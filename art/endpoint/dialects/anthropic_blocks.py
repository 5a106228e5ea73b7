"""The messages of Anthropic's API, with their content blocks, as messages of chat completions."""

from collections.abc import Mapping, Sequence
from typing import Any

from art.endpoint.fields import JsonObject

_ROLES = ("user", "assistant", "system")

_Block = Mapping[str, Any]


def conversation(messages: Sequence[JsonObject]) -> list[JsonObject]:
    """Convert messages.

    Args:
        messages: Messages with a text or content blocks.

    Returns:
        Messages in the form that chat templates know. The results of tools become messages of
        their own, before the text that came with them.

    Raises:
        ValueError: A message makes no sense, or has a block that this model cannot read.
    """
    converted: list[JsonObject] = []
    for index, message in enumerate(messages):
        place = f"messages[{index}]"
        role = message.get("role")
        if role not in _ROLES:
            raise ValueError(f"{place}.role is {role!r:.60}; use one of {list(_ROLES)}")
        blocks = content_blocks(message.get("content"), f"{place}.content")
        if role == "assistant":
            converted.append(_turn(blocks, f"{place}.content"))
        else:
            converted += _results(blocks, f"{place}.content")
            rest = [block for block in blocks if block["type"] != "tool_result"]
            if rest or not blocks:
                content = blocks_text(rest, f"{place}.content")
                converted.append({"role": role, "content": content})
    return converted


def content_blocks(content: object, place: str) -> list[_Block]:
    """The blocks of a content that is a text or a list of blocks.

    Raises:
        ValueError: It is something else.
    """
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    if not isinstance(content, list) or not all(_is_block(block) for block in content):
        raise ValueError(f"{place} must be a text or a list of content blocks")
    return content


def blocks_text(blocks: Sequence[_Block], place: str) -> str:
    """The text of blocks.

    Raises:
        ValueError: One is not text.
    """
    texts = []
    for block in blocks:
        text = block.get("text")
        if block["type"] != "text" or not isinstance(text, str):
            raise ValueError(
                f"{place} has a block of type {block['type']!r:.60}, which cannot stand there; "
                "this model reads text only, no images or documents"
            )
        texts.append(text)
    return "".join(texts)


def _is_block(block: object) -> bool:
    return isinstance(block, dict) and isinstance(block.get("type"), str)


def _turn(blocks: Sequence[_Block], place: str) -> JsonObject:
    """The assistant's message of its blocks."""
    calls = [_call(block, place) for block in blocks if block["type"] == "tool_use"]
    thinking = [
        block["thinking"]
        for block in blocks
        if block["type"] == "thinking" and isinstance(block.get("thinking"), str)
    ]
    others = ("tool_use", "thinking", "redacted_thinking")
    text = blocks_text([block for block in blocks if block["type"] not in others], place)
    message: JsonObject = {"role": "assistant", "content": text}
    if calls:
        message["tool_calls"] = calls
    if thinking:
        message["reasoning_content"] = "".join(thinking)
    return message


def _call(block: _Block, place: str) -> JsonObject:
    name, arguments = block.get("name"), block.get("input") or {}
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise ValueError(
            f"{place} has a tool_use without a name, or with an input that is no object"
        )
    function = {"name": name, "arguments": arguments}
    return {"id": block.get("id"), "type": "function", "function": function}


def _results(blocks: Sequence[_Block], place: str) -> list[JsonObject]:
    results = []
    for block in blocks:
        if block["type"] == "tool_result":
            inner = content_blocks(block.get("content") or "", f"{place}.tool_result")
            text = blocks_text(inner, f"{place}.tool_result")
            tool_call_id = block.get("tool_use_id")
            results.append({"role": "tool", "tool_call_id": tool_call_id, "content": text})
    return results
