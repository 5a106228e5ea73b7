"""Pieces of grammars in the Lark dialect of llguidance, as text.

The sampler compiles them; nothing here needs a grammar library. llguidance's documentation has the
dialect: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md
"""

import json
from collections.abc import Mapping
from typing import Any

# As chat templates write JSON (Jinja's ``tojson``), so that a call in the history renders to the
# tokens that were sampled.
_AS_TEMPLATES_WRITE = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
}

# Separators are regular expressions. More white space has no bound in llguidance, and a model could
# write it until its limit.
_ON_ONE_LINE = {
    "whitespace_flexible": False,
    "item_separator": ", ?",
    "key_separator": ": ?",
}


def literal(text: str) -> str:
    """Write a text that is matched as it stands."""
    return json.dumps(text, ensure_ascii=False)


def marker(text: str, token_ids: Mapping[str, int]) -> str:
    """Write a text that is one token where the vocabulary has it, since models learn it so.

    Args:
        text: A marker, such as ``<tool_call>``.
        token_ids: The markers that are tokens, with their ids.
    """
    return f"<[{token_ids[text]}]>" if text in token_ids else literal(text)


def json_value(schema: Mapping[str, Any]) -> str:
    """Write a JSON value of a schema, on one line."""
    return _json({**schema, "x-guidance": _ON_ONE_LINE})


def tool_argument(schema: Mapping[str, Any], *, lenient: bool) -> str:
    """Write a JSON value of a schema with the white space of chat templates.

    Args:
        schema: The schema.
        lenient: Whether keywords that the grammar library lacks are left out, instead of refused.
    """
    return _json({**schema, "x-guidance": {**_AS_TEMPLATES_WRITE, "lenient": lenient}})


def _json(schema: Mapping[str, Any]) -> str:
    return f"%json {json.dumps(schema, ensure_ascii=False)}"
