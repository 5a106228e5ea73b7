"""Tool calls that a chat template wrote are parsed back to the same calls."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from art.chat.tool_calls.hermes import HERMES
from art.chat.tool_calls.llama3_json import LLAMA3_JSON
from art.chat.tool_calls.protocol import ParsedText, ToolCall, ToolCallFormat
from art.chat.tool_calls.qwen_xml import QWEN_XML
from art.chat.tool_calls.registry import FORMATS, tool_call_format

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "search",
            "parameters": {
                "type": "object",
                "properties": {
                    "query": {"type": "string"},
                    "limit": {"type": "integer"},
                    "exact": {"type": "boolean"},
                    "filters": {"type": "object"},
                    "tags": {"type": ["array", "null"]},
                    "score": {"anyOf": [{"type": "number"}, {"type": "null"}]},
                    "order": {"enum": ["up", "down"]},
                },
            },
        },
    }
]

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
# Arguments that the schema of TOOLS allows; XML cannot carry a tag of its own within a string.
TYPED = st.fixed_dictionaries(
    {},
    optional={
        "query": TEXT.filter(lambda text: "</" not in text),
        "limit": st.integers(),
        "exact": st.booleans(),
        "filters": st.dictionaries(TEXT.filter(lambda text: "</" not in text), JSON, max_size=2),
        "tags": st.none() | st.lists(st.integers(), max_size=3),
        "score": st.none() | st.floats(allow_nan=False, allow_infinity=False),
        "order": st.sampled_from(["up", "down"]),
    },
).filter(lambda arguments: "</" not in json.dumps(arguments, ensure_ascii=False))


def render(tokenizer: PreTrainedTokenizerFast, content: str, calls: list[dict[str, Any]]) -> str:
    """The text of an assistant's message as the chat template writes it."""
    tool_calls = [
        {"type": "function", "function": {"name": "search", "arguments": arguments}}
        for arguments in calls
    ]
    user: dict[str, Any] = {"role": "user", "content": "u"}
    message: dict[str, Any] = {"role": "assistant", "content": content, "tool_calls": tool_calls}
    text = tokenizer.apply_chat_template([user, message], tokenize=False)
    prompt = tokenizer.apply_chat_template([user], tokenize=False, add_generation_prompt=True)
    assert isinstance(text, str)
    assert isinstance(prompt, str)
    return text.removeprefix(prompt).partition("<|im_end|>")[0]


def arguments_of(parsed: ParsedText) -> list[Any]:
    return [json.loads(call.arguments) for call in parsed.tool_calls]


Make = Callable[[str | None], PreTrainedTokenizerFast]


@pytest.mark.parametrize(
    ("template", "expected"),
    [("hermes", HERMES), ("qwen_xml", QWEN_XML), ("llama3_json", LLAMA3_JSON), ("plain", None)],
)
def test_the_format_is_found_from_the_template(
    make_tokenizer: Make, template: str, expected: object
) -> None:
    assert tool_call_format(make_tokenizer(template).get_chat_template()) is expected


@given(
    content=TEXT.filter(lambda text: "<" not in text),
    calls=st.lists(st.dictionaries(TEXT, JSON, max_size=3), min_size=1, max_size=3),
)
def test_hermes_calls_round_trip(
    make_tokenizer: Make, content: str, calls: list[dict[str, Any]]
) -> None:
    parsed = HERMES.parse(render(make_tokenizer("hermes"), content, calls), TOOLS)
    assert parsed.content == content
    assert arguments_of(parsed) == calls
    assert {call.name for call in parsed.tool_calls} == {"search"}


@given(
    content=TEXT.filter(lambda text: "<" not in text),
    calls=st.lists(TYPED, min_size=1, max_size=3),
)
def test_qwen_xml_calls_round_trip(
    make_tokenizer: Make, content: str, calls: list[dict[str, Any]]
) -> None:
    parsed = QWEN_XML.parse(render(make_tokenizer("qwen_xml"), content, calls), TOOLS)
    # Published templates trim the text before a call.
    assert parsed.content.rstrip("\n") == content.rstrip("\n")
    assert arguments_of(parsed) == calls


@given(arguments=st.dictionaries(TEXT, JSON, max_size=3))
def test_llama3_calls_round_trip(make_tokenizer: Make, arguments: dict[str, Any]) -> None:
    parsed = LLAMA3_JSON.parse(render(make_tokenizer("llama3_json"), "", [arguments]), TOOLS)
    assert parsed.content == ""
    assert arguments_of(parsed) == [arguments]


def test_llama3_takes_several_calls_separated_by_semicolons() -> None:
    call = '{"name": "search", "parameters": {"limit": 1}}'
    assert len(LLAMA3_JSON.parse(f"{call}; {call}", TOOLS).tool_calls) == 2


def test_llama3_takes_an_object_that_names_no_known_tool_for_content() -> None:
    answer = '{"name": "Bob", "parameters": {}}'
    assert LLAMA3_JSON.parse(answer, TOOLS) == ParsedText(answer)


MALFORMED = [
    "<tool_call>",
    "a<tool_call>b</tool_call>",
    '<tool_call>{"name": "f", "arguments": {}} and more',
    '<tool_call>{"name": "f", "arguments": [1]}</tool_call>',
    '<tool_call>{"name": "", "arguments": {}}</tool_call>',
    '<tool_call>{"name": "f", "arguments": {"x": NaN}}</tool_call>',
    '<tool_call>{"name": "f", "arguments": {"x": "\\ud800"}}</tool_call>',
    '<tool_call>{"arguments": {}}</tool_call>',
    "<tool_call>[]</tool_call>",
    "<tool_call>" + "[" * 100_000,
    "<tool_call><function=f><parameter=a>1</function></tool_call>",
    "<tool_call><function=f>junk</function></tool_call>",
    '{"name": "search", "parameters": {}} and more',
    '{"name": "search", "parameters": {}};',
]


@pytest.mark.parametrize("text", MALFORMED)
@pytest.mark.parametrize("each", FORMATS, ids=lambda each: type(each).__name__)
def test_malformed_calls_stay_content(each: ToolCallFormat, text: str) -> None:
    assert each.parse(text, TOOLS) == ParsedText(text)


@pytest.mark.parametrize("each", [HERMES, QWEN_XML], ids=lambda each: type(each).__name__)
@given(
    pieces=st.lists(
        st.sampled_from([*MALFORMED[:9], "<tool_call>", "</tool_call>", "x", "\n", "{"])
    )
)
def test_text_without_a_whole_call_is_kept_unchanged(
    each: ToolCallFormat, pieces: list[str]
) -> None:
    text = "".join(pieces)
    parsed = each.parse(text, TOOLS)
    if not parsed.tool_calls:
        assert parsed.content == text


def test_a_well_formed_call_is_parsed_beside_a_malformed_one() -> None:
    good = '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'
    bad = "<tool_call>{broken</tool_call>"
    parsed = HERMES.parse(f"Look:\n{good}\n{bad} done", [])
    assert parsed.tool_calls == (ToolCall("f", '{"a": 1}'),)
    assert parsed.content == f"Look:\n{bad} done"


def test_a_closing_tag_inside_an_argument_does_not_end_the_call() -> None:
    text = '<tool_call>{"name": "f", "arguments": {"html": "</tool_call>"}}</tool_call>'
    assert arguments_of(HERMES.parse(text, [])) == [{"html": "</tool_call>"}]


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("query", "5", "5"),
        ("query", "true", "true"),
        ("limit", "5", 5),
        ("limit", "five", "five"),
        ("limit", "5.5", "5.5"),
        ("score", "5", 5),
        ("score", "None", None),
        ("exact", "True", True),
        ("exact", "maybe", "maybe"),
        ("order", "1", "1"),
        ("unknown", "[1, 2]", [1, 2]),
        ("unknown", "words", "words"),
    ],
)
def test_xml_values_get_the_types_of_the_schema(key: str, text: str, value: object) -> None:
    parameter = f"<parameter={key}>\n{text}\n</parameter>"
    call = f"<tool_call>\n<function=search>\n{parameter}\n</function>\n</tool_call>"
    assert arguments_of(QWEN_XML.parse(call, TOOLS)) == [{key: value}]
