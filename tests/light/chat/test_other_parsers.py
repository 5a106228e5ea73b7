"""The formats agree with the parsers of transformers and, where it is installed, of vLLM."""

import importlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.light.chat.episodes import TOOLS, Episode, Scripted, arguments_of
from tests.light.chat.families import family
from tests.light.chat.native import NATIVE, Arguments
from tests.light.chat.test_families import ARGUMENTS, TEXT

# transformers parses JSON numbers and texts, but types no value of Qwen's XML without tools.
TRANSFORMERS = {"qwen2_5": "qwen2", "qwen3": "qwen3", "gemma4": "gemma4"}
VLLM = {
    "qwen2_5": ("hermes_tool_parser", "Hermes2ProToolParser"),
    "llama3_1": ("llama_tool_parser", "Llama3JsonToolParser"),
    "mistral_nemo": ("mistral_tool_parser", "MistralToolParser"),
    "kimi_k2": ("kimi_k2_tool_parser", "KimiK2ToolParser"),
    "deepseek_v3_tools": ("deepseekv3_tool_parser", "DeepSeekV3ToolParser"),
    "glm4_5": ("glm47_moe_tool_parser", "Glm47MoeModelToolParser"),
    "qwen3_coder": ("qwen3_engine_tool_parser", "Qwen3EngineToolParser"),
}


def turn_of(
    name: str, content: str, reasoning: str | None, calls: list[Arguments]
) -> tuple[str, str, Any]:
    """A prompt, the turn's text after it, and what art reads from it."""
    native = NATIVE[name]
    episode = Episode(family(name))
    episode.say("hi")
    turn = Scripted(
        content if native.text_beside_calls or not calls else "",
        reasoning if native.thinking else None,
        calls if native.many_calls else calls[:1],
    )
    prompt = family(name).text(episode.prompt())
    text = native.turn(prompt, turn.content, turn.reasoning, turn.calls)
    return prompt, text, episode.sample(turn)


@pytest.mark.parametrize("name", sorted(TRANSFORMERS))
@given(content=TEXT, reasoning=st.none() | TEXT, calls=st.lists(ARGUMENTS, min_size=1, max_size=2))
@settings(max_examples=10)
def test_turns_are_read_as_transformers_reads_them(
    name: str, content: str, reasoning: str | None, calls: list[Arguments]
) -> None:
    serving = pytest.importorskip("transformers.cli.serving.utils")
    fallbacks: dict[tuple[str, ...], dict[str, Any]] = serving._RESPONSE_TEMPLATE_FALLBACKS
    template = next(each for types, each in fallbacks.items() if TRANSFORMERS[name] in types)
    prompt, text, parsed = turn_of(name, content, reasoning, calls)
    each = family(name)
    ends = NATIVE[name].ends[1]
    theirs: dict[str, Any] = each.tokenizer.parse_response(text + ends, template, prefix=prompt)
    functions = [call["function"] for call in theirs.get("tool_calls", [])]
    assert arguments_of(parsed) == [function["arguments"] for function in functions]
    assert [call.name for call in parsed.tool_calls] == [each["name"] for each in functions]
    assert parsed.content == theirs.get("content", "").strip()
    assert (parsed.reasoning or "") == theirs.get("reasoning_content", "").strip()


@pytest.mark.parametrize("name", sorted(VLLM))
@given(content=TEXT, calls=st.lists(ARGUMENTS, min_size=1, max_size=2))
@settings(max_examples=10)
def test_calls_are_read_as_vllm_reads_them(name: str, content: str, calls: list[Arguments]) -> None:
    pytest.importorskip("vllm.tool_parsers")
    # What vLLM's parsers import themselves.
    pytest.importorskip("ijson")
    pytest.importorskip("mistral_common")
    module, class_name = VLLM[name]
    parser_class = getattr(importlib.import_module(f"vllm.tool_parsers.{module}"), class_name)
    protocol = importlib.import_module("vllm.entrypoints.openai.chat_completion.protocol")
    request = protocol.ChatCompletionRequest(
        model="m", messages=[{"role": "user", "content": "hi"}], tools=TOOLS
    )
    _, text, parsed = turn_of(name, content, None, calls)
    theirs = parser_class(family(name).tokenizer, request.tools).extract_tool_calls(text, request)
    assert [json.loads(call.function.arguments) for call in theirs.tool_calls] == arguments_of(
        parsed
    )
    assert [call.function.name for call in theirs.tool_calls] == [
        call.name for call in parsed.tool_calls
    ]
