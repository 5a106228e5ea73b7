"""Messages of the OpenAI API as clients send them, in the form that chat templates know."""

import uuid
from collections.abc import Mapping
from typing import Any

_ROLES = {"system", "developer", "user", "assistant", "tool", "function"}

# The OpenAI API's newer and older names, which templates do not know.
_ROLE_OF = {"developer": "system", "function": "tool"}

_TEXT_PARTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}


def normalized(message: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Convert a message to the roles and the plain text that chat templates know.

    Args:
        message: A message.
        place: Its place in the request, such as ``"messages[0]"``, for errors.

    Raises:
        ValueError: The message makes no sense, or has a part that is not text.
    """
    role = message.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise ValueError(f"{place}.role is {role!r:.60}; use one of {sorted(_ROLES)}")
    calls = _calls(message, place)
    content = content_text(message.get("content"), f"{place}.content")
    if content is None and role not in ("assistant", "tool"):
        raise ValueError(f"{place}.content is missing")
    if content is None and not calls:
        content = ""
    normal = {**message, "role": _ROLE_OF.get(role, role), "content": content}
    normal.pop("function_call", None)
    if calls is not None:
        normal["tool_calls"] = calls
    # vLLM's name for the same.
    reasoning = normal.pop("reasoning", None)
    if isinstance(reasoning, str):
        normal.setdefault("reasoning_content", reasoning)
    return normal


def content_text(content: object, place: str) -> str | None:
    """The text of a message's content.

    Args:
        content: A text, a list of parts, or ``None``.
        place: The name of the content, for errors.

    Raises:
        ValueError: It is something else, or has a part that is not text.
    """
    if isinstance(content, list):
        return "".join(_part_text(part, place) for part in content)
    if content is not None and not isinstance(content, str):
        raise ValueError(f"{place} must be text or a list of text parts")
    return content


def _part_text(part: object, place: str) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    key = _TEXT_PARTS.get(kind) if isinstance(kind, str) else None
    text = part.get(key) if isinstance(part, dict) and key else None
    if not isinstance(text, str):
        raise ValueError(
            f"{place} has a part of type {kind!r:.60}, which is not text; this model reads text "
            "only, no images, audio or files"
        )
    return text


def _calls(message: Mapping[str, Any], place: str) -> list[Any] | None:
    calls = message.get("tool_calls")
    older = message.get("function_call")
    if calls is None and isinstance(older, dict):
        calls = [{"type": "function", "function": older}]
    if calls is None:
        return None
    if not isinstance(calls, list):
        raise ValueError(f"{place}.tool_calls must be a list of function calls")
    return [_call(call, place) for call in calls]


def _call(call: object, place: str) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(call, dict) or not isinstance(function, dict):
        raise ValueError(f"{place}.tool_calls must be a list of function calls")
    if not isinstance(function.get("name"), str):
        raise ValueError(f"{place}.tool_calls must be a list of function calls; one has no name")
    arguments = function.get("arguments")
    if arguments is None or (isinstance(arguments, str) and not arguments.strip()):
        # Many clients and models write that for a tool without parameters.
        arguments = "{}"
    if not isinstance(arguments, str | dict):
        raise ValueError(f"{place}.tool_calls has arguments that are not JSON text")
    return {**call, "function": {**function, "arguments": arguments}}


def new_call_id() -> str:
    """A new identifier of a tool call."""
    return f"call_{uuid.uuid4().hex[:24]}"
