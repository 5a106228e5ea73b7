"""Server-sent events."""

import json
from collections.abc import Mapping

DONE = "data: [DONE]\n\n"
"""The last event of a stream of the OpenAI API."""


def server_sent_event(content: Mapping[str, object], name: str | None = None) -> str:
    """Write one event whose data is a JSON object.

    Args:
        content: The object.
        name: The event's name; ``None`` leaves it out.
    """
    data = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    head = "" if name is None else f"event: {name}\n"
    return f"{head}data: {data}\n\n"
