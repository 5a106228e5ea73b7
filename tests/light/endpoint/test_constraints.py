"""Requests that constrain a turn: the grammar that the sampler gets lets the right texts through.

llguidance, which the samplers compile it with, is the judge.
"""

from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from art.chat.template import ChatTemplate
from art.endpoint.constraints import Constraint, turn_grammar
from art.endpoint.errors import RequestError
from tests.light.conftest import MakeTokenizer
from tests.light.endpoint.scripted import Script

USER: Any = [{"role": "user", "content": "hi"}]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    "required": ["a"],
    "additionalProperties": False,
}


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": SCHEMA}}


TOOLS = [tool("search"), tool("fetch")]
SEARCH, FETCH = (
    f'<tool_call>\n{{"name": "{name}", "arguments": {{"a": 1}}}}\n</tool_call>'
    for name in ("search", "fetch")
)
BOTH = f"{SEARCH}\n{FETCH}"
THOUGHT = "<think>\nHm.\n</think>\n\n"
TEXTS = [
    "Sure.",
    '{"a": 1}',
    '{"a":1}',
    '{"a":  1}',
    '{\n  "a": 1\n}',
    '{"b": "x"}',
    "[1]",
    "yes",
    SEARCH,
    FETCH,
    BOTH,
]


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def allowed(mode: str) -> dict[str, Any]:
    tools = [named("fetch")]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}


@pytest.mark.parametrize(
    ("fields", "matching"),
    [
        ({"tools": TOOLS, "tool_choice": "required"}, [SEARCH, FETCH, BOTH]),
        (
            {"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False},
            [SEARCH, FETCH],
        ),
        ({"tools": TOOLS, "tool_choice": named("fetch")}, [FETCH]),
        ({"tools": TOOLS, "tool_choice": allowed("required")}, [FETCH]),
        (
            {"response_format": {"type": "json_object"}},
            ['{"a": 1}', '{"a":1}', '{"b": "x"}'],
        ),
        ({"response_format": JSON_SCHEMA}, ['{"a": 1}', '{"a":1}']),
        (
            {"response_format": JSON_SCHEMA, "tools": TOOLS},
            ['{"a": 1}', '{"a":1}', SEARCH, FETCH, BOTH],
        ),
        (
            {"response_format": JSON_SCHEMA, "tools": TOOLS, "tool_choice": "none"},
            ['{"a": 1}', '{"a":1}'],
        ),
        ({"extra_body": {"structured_outputs": {"choice": ["yes", "no"]}}}, ["yes"]),
        ({"extra_body": {"structured_outputs": {"json": SCHEMA}}}, ['{"a": 1}', '{"a":1}']),
    ],
    ids=lambda value: None if isinstance(value, list) else ",".join(value),
)
async def test_the_grammar_matches_what_was_asked_for_alone(
    client: AsyncOpenAI, script: Script, fields: dict[str, Any], matching: list[str]
) -> None:
    llguidance = pytest.importorskip("llguidance")
    hf = pytest.importorskip("llguidance.hf")
    await client.chat.completions.create(model="agent", messages=USER, **fields)
    grammar = script.options[0].controls.grammar
    tokenizer = hf.from_tokenizer(script.tokenizer)

    def matches(text: str) -> bool:
        matcher = llguidance.LLMatcher(tokenizer, grammar)
        assert not matcher.is_error(), matcher.get_error()
        token_ids = script.ids(text)
        taken = matcher.try_consume_tokens(token_ids)
        return bool(taken == len(token_ids) and matcher.is_accepting())

    assert [text for text in TEXTS if matches(text)] == matching
    # Thinking that the model may begin itself is free.
    assert [text for text in TEXTS if matches(THOUGHT + text)] == matching


@pytest.mark.parametrize(
    "fields",
    [{}, {"tools": TOOLS}, {"tools": TOOLS, "tool_choice": allowed("auto")}, {"tools": []}],
    ids=["nothing", "tools", "allowed tools", "no tools"],
)
async def test_a_turn_of_free_choice_has_no_grammar(
    client: AsyncOpenAI, script: Script, fields: dict[str, Any]
) -> None:
    await client.chat.completions.create(model="agent", messages=USER, **fields)
    assert script.options[0].controls.grammar is None


async def test_only_the_allowed_tools_are_shown(client: AsyncOpenAI, script: Script) -> None:
    fields: Any = {"tools": TOOLS, "tool_choice": allowed("auto")}
    await client.chat.completions.create(model="agent", messages=USER, **fields)
    prompt = script.decode(script.prompts[0])
    assert ('"fetch"' in prompt, '"search"' in prompt) == (True, False)


async def test_an_allowed_tool_must_be_among_the_tools(client: AsyncOpenAI) -> None:
    fields: Any = {"tools": TOOLS[:1], "tool_choice": allowed("auto")}
    with pytest.raises(openai.BadRequestError, match="allows 'fetch', which is not among"):
        await client.chat.completions.create(model="agent", messages=USER, **fields)


def test_calls_without_a_grammar_cannot_be_demanded(make_tokenizer: MakeTokenizer) -> None:
    template = ChatTemplate(make_tokenizer("plain"))
    with pytest.raises(RequestError, match="have no grammar here; use tool_choice auto") as caught:
        turn_grammar(Constraint(tool_use="required"), TOOLS, [1], parallel=True, template=template)
    assert (caught.value.status, caught.value.param) == (400, "tool_choice")
