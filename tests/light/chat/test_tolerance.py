"""Tool calls as models really write them: tags left out, arguments as text, empty or absent."""

import json
from typing import Any

import pytest

from art.chat.tool_calls.deepseek import DEEPSEEK
from art.chat.tool_calls.gemma4 import GEMMA4
from art.chat.tool_calls.glm_xml import GLM_XML
from art.chat.tool_calls.harmony import HARMONY
from art.chat.tool_calls.hermes import HERMES
from art.chat.tool_calls.kimi import KIMI
from art.chat.tool_calls.llama3_json import LLAMA3_JSON
from art.chat.tool_calls.mistral import MISTRAL
from art.chat.tool_calls.phi4_mini import PHI4_MINI
from art.chat.tool_calls.protocol import ParsedText, ToolCallFormat
from art.chat.tool_calls.pythonic import PYTHONIC
from art.chat.tool_calls.qwen_xml import QWEN_XML
from tests.light.chat.episodes import TOOLS

FERN = {"query": "fern"}
BLOCK = '{"name": "search", "arguments": {"query": "fern"}}'
XML = "<function=search>\n<parameter=query>\nfern\n</parameter>\n</function>"
DEEPSEEK_HEAD = "<｜tool▁call▁begin｜>function<｜tool▁sep｜>search\n```json\n"
KIMI_HEAD = "<|tool_call_begin|>functions.search:0<|tool_call_argument_begin|>"


def read(each: ToolCallFormat, text: str) -> tuple[str, list[Any]]:
    parsed = each.parse(text, TOOLS)
    assert {call.name for call in parsed.tool_calls} <= {"search"}
    return parsed.content, [json.loads(call.arguments) for call in parsed.tool_calls]


@pytest.mark.parametrize(
    ("each", "text", "content"),
    [
        pytest.param(HERMES, f"Well.\n<tool_call>\n{BLOCK}\n", "Well.", id="hermes-no-closing"),
        pytest.param(HERMES, f"Well.\n{BLOCK}\n</tool_call>", "Well.", id="hermes-no-opening"),
        pytest.param(QWEN_XML, f"Well.\n\n{XML}\n</tool_call>", "Well.", id="xml-no-opening"),
        pytest.param(QWEN_XML, f"Well.\n\n{XML}", "Well.", id="xml-no-tags"),
        pytest.param(QWEN_XML, f"<tool_call>\n{XML}", "", id="xml-no-closing"),
        pytest.param(
            QWEN_XML,
            "<tool_call>" + XML.replace("</function>", "") + "</tool_call>",
            "",
            id="xml-no-function-end",
        ),
        pytest.param(
            GLM_XML,
            "<tool_call>search\n<arg_key>query</arg_key>\n<arg_value>fern</arg_value>\n",
            "",
            id="glm-no-closing",
        ),
        pytest.param(
            GLM_XML,
            "search<arg_key>query</arg_key><arg_value>fern</arg_value></tool_call>",
            "",
            id="glm-no-opening",
        ),
        pytest.param(
            DEEPSEEK, f'{DEEPSEEK_HEAD}{{"query": "fern"}}\n```', "", id="deepseek-no-section"
        ),
        pytest.param(
            DEEPSEEK,
            '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>search<｜tool▁sep｜>{"query": "fern"}',
            "",
            id="deepseek-v3.1-no-end",
        ),
        pytest.param(KIMI, f'Well.{KIMI_HEAD}{{"query": "fern"}}', "Well.", id="kimi-no-section"),
        pytest.param(
            KIMI,
            "<|tool_calls_section_begin|><|tool_call_begin|>search<|tool_call_argument_begin|>"
            '{"query": "fern"}<|tool_call_end|><|tool_calls_section_end|>',
            "",
            id="kimi-bare-name",
        ),
        pytest.param(MISTRAL, '[TOOL_CALLS]search{"query": "fern"}', "", id="mistral-no-args-tag"),
        pytest.param(MISTRAL, f"[TOOL_CALLS] {BLOCK}", "", id="mistral-no-list"),
        pytest.param(PHI4_MINI, f"<|tool_call|>{BLOCK}", "", id="phi-no-closing"),
        pytest.param(PHI4_MINI, f"functools[{BLOCK}]", "", id="phi-functools"),
        pytest.param(
            GEMMA4, '<|tool_call>call:search{query:<|"|>fern<|"|>}', "", id="gemma-no-closing"
        ),
        pytest.param(
            GEMMA4, '<|tool_call>call:search{"query": "fern"}<tool_call|>', "", id="gemma-json"
        ),
        pytest.param(
            LLAMA3_JSON,
            '<|python_tag|>{"name": "search", "parameters": {"query": "fern"}}',
            "",
            id="llama-python-tag",
        ),
        pytest.param(LLAMA3_JSON, BLOCK, "", id="llama-arguments"),
        pytest.param(PYTHONIC, 'search(query="fern")'.join("[]"), "", id="pythonic"),
        pytest.param(
            PYTHONIC,
            "<|python_start|>[search(query='fern')]<|python_end|>",
            "",
            id="pythonic-frame",
        ),
        pytest.param(
            HARMONY,
            "<|channel|>commentary to=functions.search <|constrain|>json<|message|>"
            '{"query": "fern"}',
            "",
            id="harmony-recipient-after-channel",
        ),
        pytest.param(
            HARMONY,
            '<|channel|>analysis to=functions.search code<|message|>{"query": "fern"}',
            "",
            id="harmony-call-in-analysis",
        ),
    ],
)
def test_a_call_with_tags_left_out_is_read(each: ToolCallFormat, text: str, content: str) -> None:
    assert read(each, text) == (content, [FERN])


@pytest.mark.parametrize("arguments", ['"{\\"query\\": \\"fern\\"}"', '{"query": "fern"}'])
@pytest.mark.parametrize(
    ("each", "template"),
    [
        (HERMES, '<tool_call>{{"name": "search", "arguments": {}}}</tool_call>'),
        (LLAMA3_JSON, '{{"name": "search", "parameters": {}}}'),
        (MISTRAL, '[TOOL_CALLS][{{"name": "search", "arguments": {}}}]'),
        (PHI4_MINI, '<|tool_call|>[{{"name": "search", "arguments": {}}}]<|/tool_call|>'),
        (KIMI, KIMI_HEAD + "{}<|tool_call_end|>"),
        (DEEPSEEK, DEEPSEEK_HEAD + "{}\n```<｜tool▁call▁end｜>"),
        (HARMONY, " to=functions.search<|channel|>commentary json<|message|>{}"),
    ],
    ids=lambda each: type(each).__name__ if not isinstance(each, str) else "",
)
def test_arguments_may_be_json_text(each: ToolCallFormat, template: str, arguments: str) -> None:
    assert read(each, template.format(arguments)) == ("", [FERN])


@pytest.mark.parametrize(
    ("each", "text"),
    [
        (HERMES, '<tool_call>{"name": "search"}</tool_call>'),
        (HERMES, '<tool_call>{"name": "search", "arguments": ""}</tool_call>'),
        (HERMES, '<tool_call>{"name": "search", "arguments": null}</tool_call>'),
        (QWEN_XML, "<tool_call>\n<function=search>\n</function>\n</tool_call>"),
        (GLM_XML, "<tool_call>search</tool_call>"),
        (GLM_XML, "<tool_call>search\n</tool_call>"),
        (DEEPSEEK, "<｜tool▁call▁begin｜>search<｜tool▁sep｜><｜tool▁call▁end｜>"),
        (KIMI, KIMI_HEAD + "<|tool_call_end|>"),
        (MISTRAL, "[TOOL_CALLS]search[ARGS]"),
        (MISTRAL, '[TOOL_CALLS][{"name": "search"}]'),
        (PHI4_MINI, '<|tool_call|>[{"name": "search"}]<|/tool_call|>'),
        (GEMMA4, "<|tool_call>call:search{}<tool_call|>"),
        (LLAMA3_JSON, '{"name": "search", "parameters": ""}'),
        (PYTHONIC, "[search()]"),
        (HARMONY, " to=functions.search<|channel|>commentary json<|message|>"),
    ],
)
def test_arguments_may_be_empty_or_absent(each: ToolCallFormat, text: str) -> None:
    assert read(each, text) == ("", [{}])


@pytest.mark.parametrize(
    ("each", "text"),
    [
        (HERMES, f"{BLOCK}"),
        (HERMES, BLOCK.replace("search", "unknown") + "</tool_call>"),
        (QWEN_XML, XML.replace("search", "unknown")),
        (QWEN_XML, "<tool_call><function=search><parameter=query>fe"),
        (GLM_XML, "<tool_call>sea"),
        (MISTRAL, "[TOOL_CALLS]sea"),
        (MISTRAL, '[TOOL_CALLS]search[ARGS]{"query": "fe'),
        (KIMI, KIMI_HEAD + '{"query": "fe'),
        (DEEPSEEK, DEEPSEEK_HEAD + '{"query": "fe'),
        (GEMMA4, '<|tool_call>call:search{query:<|"|>fe'),
        (GEMMA4, "<|tool_call>call:search" + "{a:" * 500),
        (PYTHONIC, "[search(query=open('x'))]"),
        (PYTHONIC, "[search('fern')]"),
        (PYTHONIC, "[" * 10_000),
        (PYTHONIC, "[1, 2]"),
        (PHI4_MINI, 'functools[{"name": "reduce"}]'),
        (LLAMA3_JSON, '{"name": "search"}'),
    ],
)
def test_what_is_no_whole_call_stays_content(each: ToolCallFormat, text: str) -> None:
    assert each.parse(text, TOOLS) == ParsedText(text)


@pytest.mark.parametrize(
    ("text", "content", "reasoning"),
    [
        ("plain text", "plain text", None),
        ("<|channel|>final<|message|>Hello.", "Hello.", None),
        (
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final"
            "<|message|>Hello.",
            "Hello.",
            "Hm.",
        ),
        ("<|channel|>analysis<|message|>Hm", "", "Hm"),
        ("<|channel|>analysis<|message|>Hm<|end|><|start|>assistant<|channel|>fin", "fin", "Hm"),
        ("<|channel|>analysis<|message|>Hm<|channel|>final<|message|>Yes", "Yes", "Hm"),
        (
            "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>analysis"
            "<|message|>b<|end|><|start|>assistant<|channel|>commentary<|message|>c<|end|>",
            "c",
            "a\nb",
        ),
        # No tools are on offer, so a call is content.
        (" to=functions.f<|channel|>commentary json<|message|>{}", "{}", None),
    ],
)
def test_channels_do_not_leak_into_content(text: str, content: str, reasoning: str | None) -> None:
    assert HARMONY.parse(text, []) == ParsedText(content, (), reasoning)


def test_a_call_keeps_the_id_that_the_model_wrote() -> None:
    kimi = KIMI.parse(KIMI_HEAD + "{}<|tool_call_end|>", TOOLS).tool_calls
    mistral = MISTRAL.parse("[TOOL_CALLS]search[CALL_ID]abc123def[ARGS]{}", TOOLS).tool_calls
    assert [call.id for call in (*kimi, *mistral)] == ["functions.search:0", "abc123def"]
