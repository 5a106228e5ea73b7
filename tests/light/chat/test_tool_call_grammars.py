"""Grammars of tool calls: what a template writes is let through, and what is let through parses.

llguidance, which the samplers compile them with, is the judge.
"""

import json
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from art.chat.template import ChatTemplate
from tests.light.conftest import MakeTokenizer

llguidance = pytest.importorskip("llguidance")
hf = pytest.importorskip("llguidance.hf")

SEARCH: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "search",
        "parameters": {
            "type": "object",
            "properties": {
                "query": {"type": "string"},
                "limit": {"type": "integer"},
                "order": {"type": "string", "enum": ["new", "old"]},
                "within": {"$ref": "#/$defs/range"},
            },
            "required": ["query"],
            "additionalProperties": False,
            "$defs": {"range": {"type": "object", "properties": {"days": {"type": "number"}}}},
        },
    },
}
CLOCK: dict[str, Any] = {"type": "function", "function": {"name": "clôck"}}
TOOLS = [SEARCH, CLOCK]
FORMATS = ["hermes", "qwen_xml", "llama3_json"]
SEARCH_CALL = {"name": "search", "arguments": {"query": 'the "é"\n and', "limit": 3}}


def call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def written(tokenizer: PreTrainedTokenizerFast, calls: list[dict[str, Any]]) -> str:
    """The calls as the chat template writes them."""
    message: Any = {"role": "assistant", "content": "", "tool_calls": calls}
    text = tokenizer.apply_chat_template([message], tokenize=False)
    assert isinstance(text, str)
    return text.removeprefix("<|im_start|>assistant\n").lstrip("\n").partition("<|im_end|>")[0]


def matches(tokenizer: PreTrainedTokenizerFast, rules: str, text: str) -> bool:
    grammar = f"start: tool_calls\n{rules}"
    matcher = llguidance.LLMatcher(hf.from_tokenizer(tokenizer), grammar)
    assert not matcher.is_error(), (matcher.get_error(), grammar)
    token_ids = tokenizer.encode(text, add_special_tokens=False)
    taken = matcher.try_consume_tokens(token_ids)
    return bool(taken == len(token_ids) and matcher.is_accepting())


def rules_of(
    template: ChatTemplate, tools: list[dict[str, Any]] = TOOLS, *, parallel: bool = True
) -> str:
    assert template.tool_call_format is not None
    rules = template.tool_call_format.grammar(
        tools, parallel=parallel, token_ids=template.marker_token_ids
    )
    assert rules is not None
    return rules


@pytest.mark.parametrize(
    "arguments",
    [
        {"query": "tea"},
        {"query": 'the "é"\n{and} \\', "limit": 3},
        {"query": "", "order": "old", "within": {"days": 1.5}},
    ],
)
@pytest.mark.parametrize("name", FORMATS)
def test_a_call_as_the_template_writes_it_matches(
    make_tokenizer: MakeTokenizer, name: str, arguments: dict[str, Any]
) -> None:
    tokenizer = make_tokenizer(name)
    template = ChatTemplate(tokenizer)
    text = written(tokenizer, [call("search", arguments)])
    assert matches(tokenizer, rules_of(template), text)
    assert template.tool_call_format is not None
    (parsed,) = template.tool_call_format.parse(text, TOOLS).tool_calls
    assert json.loads(parsed.arguments) == arguments


@pytest.mark.parametrize("name", FORMATS)
def test_a_tool_without_a_schema_takes_any_arguments_or_none(
    make_tokenizer: MakeTokenizer, name: str
) -> None:
    tokenizer = make_tokenizer(name)
    text = written(tokenizer, [call("clôck", {})])
    assert matches(tokenizer, rules_of(ChatTemplate(tokenizer)), text)


@pytest.mark.parametrize(
    ("parallel", "texts"), [(True, [1, 2, 3]), (False, [1])], ids=["several", "one"]
)
@pytest.mark.parametrize(
    ("name", "separator"), [("hermes", "\n"), ("qwen_xml", "\n"), ("llama3_json", "; ")]
)
def test_the_number_of_calls_is_limited(
    make_tokenizer: MakeTokenizer, name: str, separator: str, parallel: bool, texts: list[int]
) -> None:
    tokenizer = make_tokenizer(name)
    rules = rules_of(ChatTemplate(tokenizer), parallel=parallel)
    one = written(tokenizer, [call("search", {"query": "x"})])
    matching = [n for n in range(4) if matches(tokenizer, rules, separator.join([one] * n))]
    assert matching == texts


@pytest.mark.parametrize(
    "arguments",
    [{}, {"query": 5}, {"query": "x", "other": 1}, {"query": "x", "limit": "many"}],
    ids=["required one missing", "wrong type", "unknown one", "text for a number"],
)
@pytest.mark.parametrize("name", ["hermes", "llama3_json"])
def test_arguments_that_do_not_follow_the_schema_do_not_match(
    make_tokenizer: MakeTokenizer, name: str, arguments: dict[str, Any]
) -> None:
    tokenizer = make_tokenizer(name)
    text = written(tokenizer, [call("search", arguments)])
    assert not matches(tokenizer, rules_of(ChatTemplate(tokenizer)), text)


@pytest.mark.parametrize(
    "arguments",
    [{}, {"query": "x", "other": 1}, {"query": "x", "limit": "many"}, {"query": "x", "order": "?"}],
    ids=["required one missing", "unknown one", "text for a number", "not among the values"],
)
def test_parameters_that_do_not_follow_the_schema_do_not_match(
    make_tokenizer: MakeTokenizer, arguments: dict[str, Any]
) -> None:
    tokenizer = make_tokenizer("qwen_xml")
    text = written(tokenizer, [call("search", arguments)])
    assert not matches(tokenizer, rules_of(ChatTemplate(tokenizer)), text)


@pytest.mark.parametrize("name", FORMATS)
def test_another_tool_and_plain_text_do_not_match(make_tokenizer: MakeTokenizer, name: str) -> None:
    tokenizer = make_tokenizer(name)
    rules = rules_of(ChatTemplate(tokenizer), [SEARCH])
    assert not matches(tokenizer, rules, written(tokenizer, [call("clock", {})]))
    assert not matches(tokenizer, rules, "I do not want to.")


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("strict", [True, False])
def test_a_keyword_without_a_grammar_is_refused_for_strict_tools_alone(
    make_tokenizer: MakeTokenizer, name: str, strict: bool
) -> None:
    tokenizer = make_tokenizer(name)
    parameters = {"properties": {"a": {"type": "array", "uniqueItems": True}}}
    tool = {"function": {"name": "f", "parameters": parameters, "strict": strict}}
    grammar = f"start: tool_calls\n{rules_of(ChatTemplate(tokenizer), [tool])}"
    assert llguidance.LLMatcher(hf.from_tokenizer(tokenizer), grammar).is_error() is strict
