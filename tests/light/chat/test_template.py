"""Prompts are those of transformers itself, and sampled tokens come back as text."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from art.chat.template import ChatTemplate, ChatTemplateError
from art.errors import ConfigurationError

Make = Callable[[str | None], PreTrainedTokenizerFast]
USER = {"role": "user", "content": "and the rest"}
TOOL = {"type": "function", "function": {"name": "search", "parameters": {"type": "object"}}}


def call(arguments: object) -> dict[str, Any]:
    function = {"name": "search", "arguments": arguments}
    return {"id": "call_1", "type": "function", "function": function}


@pytest.mark.parametrize("template", ["hermes", "qwen_xml", "llama3_json"])
def test_prompts_are_those_of_transformers(make_tokenizer: Make, template: str) -> None:
    tokenizer = make_tokenizer(template)
    messages = [
        {"role": "system", "content": "be brief"},
        USER,
        {"role": "assistant", "content": "", "tool_calls": [call({"query": "é"})]},
        {"role": "tool", "content": "5", "tool_call_id": "call_1"},
    ]
    expected = tokenizer.apply_chat_template(
        messages, tools=[TOOL], add_generation_prompt=True, return_dict=False
    )
    # As an OpenAI client sends the same: arguments as text, and nulls.
    messages[2] = {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "tool_calls": [call('{"query": "é"}')],
    }
    assert ChatTemplate(tokenizer).prompt_token_ids(messages, [TOOL]) == expected


def test_template_variables_reach_the_template(make_tokenizer: Make) -> None:
    tokenizer = make_tokenizer("hermes")
    quiet = ChatTemplate(tokenizer, template_kwargs={"enable_thinking": False})
    assert tokenizer.decode(quiet.prompt_token_ids([USER])).endswith("<think>\n\n</think>\n\n")
    loud = quiet.prompt_token_ids([USER], template_kwargs={"enable_thinking": True})
    assert tokenizer.decode(loud).endswith("assistant\n")


def test_another_template_replaces_the_tokenizers(make_tokenizer: Make) -> None:
    tokenizer = make_tokenizer(None)
    with pytest.raises(ConfigurationError, match="has no chat template"):
        ChatTemplate(tokenizer)
    given_one = ChatTemplate(tokenizer, template="{{ messages[0].content }}")
    assert tokenizer.decode(given_one.prompt_token_ids([USER])) == "and the rest"


@pytest.mark.parametrize(
    ("template", "messages", "tools", "problem"),
    [
        ("plain", [{"role": "tool", "content": "5"}], None, "this model knows no tools"),
        ("plain", [USER], [TOOL], "does not show tools"),
        ("hermes", [{"role": "assistant", "content": "", "tool_calls": [call("{")]}], None, "JSON"),
    ],
)
def test_what_a_template_cannot_render(
    make_tokenizer: Make, template: str, messages: Any, tools: Any, problem: str
) -> None:
    with pytest.raises(ChatTemplateError, match=problem):
        ChatTemplate(make_tokenizer(template)).prompt_token_ids(messages, tools)


def test_variables_cannot_replace_what_rendering_sets(make_tokenizer: Make) -> None:
    template = ChatTemplate(make_tokenizer("plain"))
    with pytest.raises(ChatTemplateError):
        template.prompt_token_ids([USER], template_kwargs={"tokenize": True})


def test_the_end_of_a_turn_is_found(make_tokenizer: Make) -> None:
    tokenizer = make_tokenizer("plain")
    ends = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert ChatTemplate(tokenizer).end_of_turn_ids == tuple(ends)


def test_a_model_without_an_end_of_turn_is_refused(make_tokenizer: Make) -> None:
    tokenizer = make_tokenizer(None)
    tokenizer.eos_token = None
    template = ChatTemplate(tokenizer, template="{{ messages[-1].content }}")
    with pytest.raises(ChatTemplateError, match="ends a message"):
        _ = template.end_of_turn_ids


@given(st.text())
def test_text_comes_back_from_any_of_its_encodings(make_tokenizer: Make, text: str) -> None:
    tokenizer = make_tokenizer("hermes")
    template = ChatTemplate(tokenizer)
    canonical = tokenizer.encode(text, add_special_tokens=False)
    byte_by_byte = [
        token
        for piece in tokenizer.convert_ids_to_tokens(canonical)
        for token in tokenizer.convert_tokens_to_ids(list(piece))
    ]
    if "<|" not in text and "tool_call>" not in text:
        assert template.decode(canonical) == text
        assert template.decode(byte_by_byte) == text


def test_special_tokens_are_hidden_but_for_tool_calls(make_tokenizer: Make) -> None:
    tokenizer = make_tokenizer("hermes")
    ids = tokenizer.encode("<|im_start|>a<tool_call>b</tool_call><|endoftext|>")
    assert ChatTemplate(tokenizer).decode(ids) == "a<tool_call>b</tool_call>"
    assert ChatTemplate(make_tokenizer("plain")).decode(ids) == "ab"
