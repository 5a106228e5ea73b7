"""Constrained turns of every family: what its models write is let through, and nothing else.

llguidance, which the samplers compile grammars with, is the judge; the turns are those that the
published templates write.
"""

from functools import cache
from typing import Any

import pytest

from art.endpoint.constraints import JSON_OBJECT_RULE, Constraint, turn_grammar
from art.endpoint.errors import RequestError
from tests.light.chat.episodes import TOOLS
from tests.light.chat.families import FAMILIES, Family, family
from tests.light.chat.native import NATIVE

llguidance = pytest.importorskip("llguidance")
hf = pytest.importorskip("llguidance.hf")

WITH_TOOLS = [name for name in FAMILIES if NATIVE[name].calls]
WITH_GRAMMAR = {
    "deepseek_v3_tools",
    "gemma4",
    "glm4_5",
    "glm4_7",
    "gpt_oss",
    "kimi_k2",
    "kimi_k2_thinking",
    "ministral_3",
    "mistral_nemo",
    "mistral_small_3_2",
    "phi4_mini",
    "hermes_2_pro",
    "llama3_1",
    "llama3_2",
    "llama4",
    "qwen2_5",
    "qwen3",
    "qwen3_5",
    "qwen3_coder",
    "smollm3",
}
ARGUMENTS: dict[str, Any] = {"query": "é tea", "limit": 3}


@cache
def compiled_tokenizer(name: str) -> Any:
    return hf.from_tokenizer(family(name).tokenizer)


def matches(each: Family, grammar: str, text: str) -> bool:
    matcher = llguidance.LLMatcher(compiled_tokenizer(each.name), grammar)
    assert not matcher.is_error(), (matcher.get_error(), grammar)
    token_ids = each.encode(text)
    taken = matcher.try_consume_tokens(token_ids)
    return bool(taken == len(token_ids) and matcher.is_accepting())


def grammar_of(each: Family, constraint: Constraint, tools: list[dict[str, Any]]) -> str:
    grammar = turn_grammar(
        constraint, tools, prompt_of(each, tools), parallel=True, template=each.template
    )
    assert grammar is not None
    return grammar


def prompt_of(each: Family, tools: list[dict[str, Any]]) -> list[int]:
    return each.template.prompt_token_ids([{"role": "user", "content": "hi"}], tools)


def thoughts(name: str) -> list[str | None]:
    return [None, "Hm."] if NATIVE[name].thinking else [None]


@pytest.mark.parametrize("name", FAMILIES)
def test_json_is_let_through_after_thinking_and_text_is_not(name: str) -> None:
    each = family(name)
    grammar = grammar_of(each, Constraint(content_rule=JSON_OBJECT_RULE), [])
    prompt = each.text(prompt_of(each, []))
    for reasoning in thoughts(name):
        answer = NATIVE[name].turn(prompt, '{"a": "é"}', reasoning, ())
        assert matches(each, grammar, answer), (answer, grammar)
        assert not matches(each, grammar, NATIVE[name].turn(prompt, "Sure.", reasoning, ()))


@pytest.mark.parametrize("name", WITH_TOOLS)
def test_calls_are_let_through_after_thinking_or_cannot_be_demanded(name: str) -> None:
    each = family(name)
    if name not in WITH_GRAMMAR:
        with pytest.raises(RequestError, match="have no grammar here"):
            grammar_of(each, Constraint(tool_use="required"), TOOLS)
        return
    grammar = grammar_of(each, Constraint(tool_use="required"), TOOLS)
    prompt = each.text(prompt_of(each, TOOLS))
    for reasoning in thoughts(name):
        several = [ARGUMENTS, {"query": "x"}] if NATIVE[name].many_calls else [ARGUMENTS]
        for calls in ([ARGUMENTS], several):
            answer = NATIVE[name].turn(prompt, "", reasoning, calls)
            assert matches(each, grammar, answer), (answer, grammar)
        assert not matches(each, grammar, NATIVE[name].turn(prompt, "Sure.", reasoning, ()))


@pytest.mark.parametrize("name", sorted(WITH_GRAMMAR))
def test_other_tools_and_further_calls_are_not_let_through(name: str) -> None:
    each = family(name)
    prompt_token_ids = prompt_of(each, TOOLS)
    prompt = each.text(prompt_token_ids)
    grammar = turn_grammar(
        Constraint(tool_use="required"),
        TOOLS,
        prompt_token_ids,
        parallel=False,
        template=each.template,
    )
    assert grammar is not None
    one = NATIVE[name].turn(prompt, "", None, [ARGUMENTS])
    assert matches(each, grammar, one)
    assert not matches(each, grammar, one.replace("search", "delete"))
    assert not matches(each, grammar, one.replace("3", '"three"'))
    if NATIVE[name].many_calls:
        assert not matches(each, grammar, NATIVE[name].turn(prompt, "", None, [ARGUMENTS] * 2))
