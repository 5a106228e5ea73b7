"""The events of a streamed response of the OpenAI API, in their order and with their numbers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from art.endpoint.events import server_sent_event

_Json = Mapping[str, Any]


class ResponseEvents:
    """Writes the events of one response.

    Args:
        envelope: The response before anything is sampled.
    """

    def __init__(self, envelope: _Json) -> None:
        self._envelope = envelope
        self._next = 0

    def opening(self) -> Iterator[str]:
        """The events that precede sampling."""
        yield self._event("response.created", {"response": self._envelope})
        yield self._event("response.in_progress", {"response": self._envelope})

    def items(self, items: Sequence[_Json]) -> Iterator[str]:
        """The events of the output items."""
        for index, item in enumerate(items):
            at = {"output_index": index}
            empty = {"status": "in_progress", **_EMPTY[item["type"]]}
            yield self._event("response.output_item.added", {**at, "item": {**item, **empty}})
            inner = {**at, "item_id": item["id"]}
            if item["type"] == "function_call":
                yield from self._call(item, inner)
            else:
                yield from self._part(item["content"][0], {**inner, "content_index": 0})
            yield self._event("response.output_item.done", {**at, "item": item})

    def closing(self, response: _Json) -> str:
        """The last event, which holds the whole response."""
        return self._event(f"response.{response['status']}", {"response": response})

    def _call(self, item: _Json, at: _Json) -> Iterator[str]:
        arguments = item["arguments"]
        kind = "response.function_call_arguments"
        yield self._event(f"{kind}.delta", {**at, "delta": arguments})
        done = {**at, "arguments": arguments, "name": item["name"]}
        yield self._event(f"{kind}.done", done)

    def _part(self, part: _Json, at: _Json) -> Iterator[str]:
        is_text = part["type"] == "output_text"
        kind = "response.output_text" if is_text else "response.reasoning_text"
        logprobs = {"logprobs": part["logprobs"]} if is_text else {}
        empty = {**part, "text": "", **({"logprobs": []} if is_text else {})}
        yield self._event("response.content_part.added", {**at, "part": empty})
        yield self._event(f"{kind}.delta", {**at, "delta": part["text"], **logprobs})
        yield self._event(f"{kind}.done", {**at, "text": part["text"], **logprobs})
        yield self._event("response.content_part.done", {**at, "part": part})

    def _event(self, kind: str, fields: _Json) -> str:
        number, self._next = self._next, self._next + 1
        return server_sent_event({"type": kind, "sequence_number": number, **fields}, name=kind)


# The fields of an item that is announced, by its type.
_EMPTY: Mapping[str, _Json] = {
    "message": {"content": []},
    "reasoning": {"content": []},
    "function_call": {"arguments": ""},
}
