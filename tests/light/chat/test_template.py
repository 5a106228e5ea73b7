"""Chat templates: prompts equal those of transformers, and sampled tokens come back as text."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from art.chat.template import ChatTemplate
from art.errors import ChatTemplateError, ConfigurationError

Make = Callable[[str | None], PreTrainedTokenizerFast]
USER: dict[str, Any] = {"role": "user", "content": "and the rest"}
TOOL = {"type": "function", "function": {"name": "search", "parameters": {"type": "object"}}}


def decoded(tokenizer: PreTrainedTokenizerFast, token_ids: list[int]) -> str:
    text = tokenizer.decode(token_ids)
    assert isinstance(text, str)
    return text


def call(arguments: object) -> dict[str, Any]:
    function = {"name": "search", "arguments": arguments}
    return {"id": "call_1", "type": "function", "function": function}


@pytest.mark.parametrize("template", ["hermes", "qwen_xml", "llama3_json"])
def test_prompts_are_those_of_transformers(make_tokenizer: Make, template: str) -> None:
    tokenizer = make_tokenizer(template)
    messages: list[dict[str, Any]] = [
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
    assert decoded(tokenizer, quiet.prompt_token_ids([USER])).endswith("<think>\n\n</think>\n\n")
    loud = quiet.prompt_token_ids([USER], template_kwargs={"enable_thinking": True})
    assert decoded(tokenizer, loud).endswith("assistant\n")


def test_a_given_template_replaces_the_tokenizers_own(make_tokenizer: Make) -> None:
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
def test_a_conversation_that_the_template_cannot_render_is_refused(
    make_tokenizer: Make, template: str, messages: Any, tools: Any, problem: str
) -> None:
    with pytest.raises(ChatTemplateError, match=problem):
        ChatTemplate(make_tokenizer(template)).prompt_token_ids(messages, tools)


def test_template_variables_cannot_replace_arguments_of_the_rendering(make_tokenizer: Make) -> None:
    template = ChatTemplate(make_tokenizer("plain"))
    with pytest.raises(ChatTemplateError):
        template.prompt_token_ids([USER], template_kwargs={"tokenize": True})


def test_end_of_turn_ids_are_the_templates_token_and_the_tokenizers(make_tokenizer: Make) -> None:
    tokenizer = make_tokenizer("plain")
    ends = [tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>")]
    assert ChatTemplate(tokenizer).end_of_turn_ids == tuple(ends)


def test_a_model_without_an_end_of_turn_token_is_refused(make_tokenizer: Make) -> None:
    tokenizer = make_tokenizer(None)
    tokenizer.eos_token = None
    template = ChatTemplate(tokenizer, template="{{ messages[-1].content }}")
    with pytest.raises(ChatTemplateError, match="ends a message"):
        _ = template.end_of_turn_ids


@given(st.text())
def test_any_encoding_of_a_text_decodes_to_it(make_tokenizer: Make, text: str) -> None:
    tokenizer = make_tokenizer("hermes")
    template = ChatTemplate(tokenizer)
    canonical = tokenizer.encode(text, add_special_tokens=False)
    pieces = tokenizer.convert_ids_to_tokens(canonical)
    byte_by_byte = tokenizer.convert_tokens_to_ids(list("".join(pieces)))
    assert isinstance(byte_by_byte, list)
    if "<|" not in text and "tool_call>" not in text:
        assert template.decode(canonical) == text
        assert template.decode(byte_by_byte) == text


def test_decoding_hides_special_tokens_except_tool_call_markers(make_tokenizer: Make) -> None:
    tokenizer = make_tokenizer("hermes")
    ids = tokenizer.encode("<|im_start|>a<tool_call>b</tool_call><|endoftext|>")
    assert ChatTemplate(tokenizer).decode(ids) == "a<tool_call>b</tool_call>"
    assert ChatTemplate(make_tokenizer("plain")).decode(ids) == "ab"
