"""The input items of the OpenAI API's responses as messages of chat completions."""

from collections.abc import Callable, Mapping
from typing import Any

from art.endpoint.conversation import content_text, normalized
from art.endpoint.fields import JsonObject

_ROLES = ("system", "developer", "user", "assistant")

_Item = Mapping[str, Any]


def conversation(value: object) -> list[JsonObject]:
    """Convert the input of a request to messages.

    What a model said in one turn comes as several items, reasoning, a message and calls; they make
    one message again, so that the prompt goes on where the turn ended.

    Args:
        value: A text, which is the user's, or a list of items.

    Returns:
        Messages in the form that chat templates know, at least one.

    Raises:
        ValueError: There are none, or an item is not text, a call or its output.
    """
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if not isinstance(value, list) or not value:
        raise ValueError("input must be a text, or a list of items that is not empty")
    reader = _Reader()
    for index, item in enumerate(value):
        reader.read(item, f"input[{index}]")
    return [normalized(message, "input") for message in reader.finished()]


class _Reader:
    """Collects messages; the assistant's last one stays open for more items of its turn."""

    def __init__(self) -> None:
        self._messages: list[JsonObject] = []
        self._open: JsonObject | None = None

    def read(self, item: object, place: str) -> None:
        if not isinstance(item, dict):
            raise ValueError(f"{place} must be an object")
        kind = item.get("type", "message" if "role" in item else None)
        readers: dict[object, Callable[[_Item, str], None]] = {
            "message": self._message,
            "reasoning": self._reasoning,
            "function_call": self._function_call,
            "function_call_output": self._output,
        }
        reader = readers.get(kind) if isinstance(kind, str) else None
        if reader is None:
            raise ValueError(
                f"{place} is of type {kind!r:.60}, which this server cannot read; it reads "
                f"{', '.join(map(str, readers))}"
            )
        reader(item, place)

    def finished(self) -> list[JsonObject]:
        self._close()
        return self._messages

    def _message(self, item: _Item, place: str) -> None:
        role = item.get("role")
        if role not in _ROLES:
            raise ValueError(f"{place}.role is {role!r:.60}; use one of {list(_ROLES)}")
        content = content_text(item.get("content"), f"{place}.content")
        if role == "assistant":
            self._turn("content", "tool_calls")["content"] = content
        else:
            self._add({"role": role, "content": content})

    def _reasoning(self, item: _Item, place: str) -> None:
        parts = item.get("content") or item.get("summary") or []
        texts = [part.get("text") for part in parts if isinstance(part, dict)]
        text = "".join(each for each in texts if isinstance(each, str))
        if text:
            self._turn("reasoning_content", "content", "tool_calls")["reasoning_content"] = text

    def _function_call(self, item: _Item, place: str) -> None:
        if not isinstance(item.get("name"), str):
            raise ValueError(f"{place}.name is missing")
        function = {"name": item.get("name"), "arguments": item.get("arguments")}
        call = {"id": item.get("call_id"), "type": "function", "function": function}
        self._turn().setdefault("tool_calls", []).append(call)

    def _output(self, item: _Item, place: str) -> None:
        content = content_text(item.get("output"), f"{place}.output")
        if content is None:
            raise ValueError(f"{place}.output is missing")
        self._add({"role": "tool", "tool_call_id": item.get("call_id"), "content": content})

    def _turn(self, *absent: str) -> JsonObject:
        """The assistant's open message, or a new one where it has one of these fields already."""
        if self._open is None or any(field in self._open for field in absent):
            self._close()
            self._open = {"role": "assistant"}
        return self._open

    def _add(self, message: JsonObject) -> None:
        self._close()
        self._messages.append(message)

    def _close(self) -> None:
        if self._open is not None:
            self._messages.append(self._open)
        self._open = None
