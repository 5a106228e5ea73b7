"""Server-sent events."""

import json
from collections.abc import Mapping


def server_sent_event(content: Mapping[str, object]) -> str:
    """Write one event whose data is a JSON object."""
    data = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return f"data: {data}\n\n"
