"""Turns as each family's model writes them, written here by hand from the families' formats.

It is the reference that templates and parsers are compared with, so it shares no code with them.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Arguments = dict[str, Any]
# The text of calls of the tool "search" that follows some content.
WriteCalls = Callable[[str, Sequence[Arguments]], str]


@dataclass(frozen=True)
class Native:
    """How a family's model writes.

    Attributes:
        ends: The token after a message and the one after calls.
        calls: Writes calls; ``None`` where the template shows no tools.
        thinking: What stands before, after, and in place of thinking; ``None`` where the model
            does not think.
        many_calls: Whether a turn may have several calls.
        text_beside_calls: Whether the template keeps text beside calls, in its place.
        variables: Variables of the template with which the model thinks.
    """

    ends: tuple[str, str]
    calls: WriteCalls | None = None
    thinking: tuple[str, str, str] | None = None
    many_calls: bool = True
    text_beside_calls: bool = True
    variables: Mapping[str, Any] = field(default_factory=dict)

    def turn(
        self, prompt: str, content: str, reasoning: str | None, calls: Sequence[Arguments]
    ) -> str:
        """The text of a turn after a prompt, without the token that ends it."""
        before = self._thinking(prompt, reasoning)
        written = self.calls(content, calls) if calls and self.calls else content
        return before + written

    def _thinking(self, prompt: str, reasoning: str | None) -> str:
        if self.thinking is None:
            return ""
        opening, closing, nothing = self.thinking
        if reasoning is None:
            return "" if _closed(prompt) else nothing
        text = opening + reasoning + closing
        # The prompt may have begun the thinking.
        begun = next((n for n in range(len(opening), 0, -1) if prompt.endswith(opening[:n])), 0)
        return text[begun:] if prompt.rstrip().endswith(opening.strip()) else text


def _closed(prompt: str) -> bool:
    return prompt.rstrip().endswith(("</think>", "<channel|>", "[/THINK]"))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _hermes(content: str, calls: Sequence[Arguments]) -> str:
    blocks = [
        f'<tool_call>\n{{"name": "search", "arguments": {_json(each)}}}\n</tool_call>'
        for each in calls
    ]
    return "\n".join(filter(None, [content, *blocks]))


def _xml_value(value: Any) -> str:
    return _json(value) if isinstance(value, dict | list) else str(value)


def _qwen_xml(content: str, calls: Sequence[Arguments]) -> str:
    blocks = []
    for each in calls:
        parameters = [
            f"<parameter={key}>\n{_xml_value(value)}\n</parameter>\n" for key, value in each.items()
        ]
        inside = f"<function=search>\n{''.join(parameters)}</function>"
        blocks.append(f"<tool_call>\n{inside}\n</tool_call>")
    return f"{content}\n\n" * bool(content) + "\n".join(blocks)


def _llama(content: str, calls: Sequence[Arguments]) -> str:
    return "".join(f'{{"name": "search", "parameters": {_json(each)}}}' for each in calls)


def _llama4(content: str, calls: Sequence[Arguments]) -> str:
    return f"<|python_start|>{content}<|python_end|>" + _llama("", calls)


def _mistral_list(content: str, calls: Sequence[Arguments]) -> str:
    objects = [
        f'{{"name": "search", "arguments": {_json(each)}, "id": "abcdefgh{number}"}}'
        for number, each in enumerate(calls)
    ]
    return f"{content}[TOOL_CALLS][{', '.join(objects)}]"


def _mistral_ids(content: str, calls: Sequence[Arguments]) -> str:
    return content + "".join(
        f"[TOOL_CALLS]search[CALL_ID]abcdefgh{number}[ARGS]{_json(each)}"
        for number, each in enumerate(calls)
    )


def _mistral_names(content: str, calls: Sequence[Arguments]) -> str:
    return content + "".join(f"[TOOL_CALLS]search[ARGS]{_json(each)}" for each in calls)


def _gemma_value(value: Any) -> str:
    if isinstance(value, str):
        return f'<|"|>{value}<|"|>'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return _gemma_object(value)
    if isinstance(value, list):
        return f"[{','.join(map(_gemma_value, value))}]"
    return str(value)


def _gemma_object(value: Arguments) -> str:
    members = (f"{key}:{_gemma_value(value[key])}" for key in sorted(value, key=str.lower))
    return "{" + ",".join(members) + "}"


def _gemma(content: str, calls: Sequence[Arguments]) -> str:
    return "".join(f"<|tool_call>call:search{_gemma_object(each)}<tool_call|>" for each in calls)


def _glm_lines(content: str, calls: Sequence[Arguments]) -> str:
    blocks = []
    for each in calls:
        pairs = "".join(
            f"<arg_key>{key}</arg_key>\n<arg_value>{_glm_value(value)}</arg_value>\n"
            for key, value in each.items()
        )
        blocks.append(f"\n<tool_call>search\n{pairs}</tool_call>")
    return (f"\n{content}" if content else "") + "".join(blocks)


def _glm_text(content: str, calls: Sequence[Arguments]) -> str:
    return _glm_lines(content, calls) if calls else f"\n{content}"


def _glm_value(value: Any) -> str:
    return value if isinstance(value, str) else _json(value)


def _glm_line(content: str, calls: Sequence[Arguments]) -> str:
    blocks = []
    for each in calls:
        pairs = "".join(
            f"<arg_key>{key}</arg_key><arg_value>{_glm_value(value)}</arg_value>"
            for key, value in each.items()
        )
        blocks.append(f"<tool_call>search{pairs}</tool_call>")
    return content + "".join(blocks)


def _deepseek(content: str, calls: Sequence[Arguments]) -> str:
    blocks = [
        f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>search\n```json\n{_json(each)}\n```<｜tool▁call▁end｜>"
        for each in calls
    ]
    return f"{content}<｜tool▁calls▁begin｜>" + "\n".join(blocks) + "<｜tool▁calls▁end｜>"


def _kimi(content: str, calls: Sequence[Arguments]) -> str:
    blocks = [
        f"<|tool_call_begin|>functions.search:{number}<|tool_call_argument_begin|>{_json(each)}"
        "<|tool_call_end|>"
        for number, each in enumerate(calls)
    ]
    return f"{content}<|tool_calls_section_begin|>{''.join(blocks)}<|tool_calls_section_end|>"


def _phi(content: str, calls: Sequence[Arguments]) -> str:
    objects = [f'{{"name": "search", "arguments": {_json(each)}}}' for each in calls]
    return "\n".join(filter(None, [content, f"<|tool_call|>[{', '.join(objects)}]<|/tool_call|>"]))


class _Harmony(Native):
    """GPT-OSS: the thinking and the answer are messages of their own."""

    def turn(
        self, prompt: str, content: str, reasoning: str | None, calls: Sequence[Arguments]
    ) -> str:
        messages = []
        if reasoning is not None:
            messages.append(f"<|channel|>analysis<|message|>{reasoning}")
        if calls:
            body = f"<|channel|>commentary json<|message|>{_json(calls[0])}"
            messages.append(f" to=functions.search{body}")
        else:
            messages.append(f"<|channel|>final<|message|>{content}")
        return "<|end|><|start|>assistant".join(messages)


class _Glm(Native):
    """GLM-4.5: a message begins on a line of its own."""

    def turn(
        self, prompt: str, content: str, reasoning: str | None, calls: Sequence[Arguments]
    ) -> str:
        return self._thinking(prompt, reasoning) + _glm_text(content, calls)


_IM_END = ("<|im_end|>", "<|im_end|>")
_EOS = ("</s>", "</s>")
_SENTENCE = ("<｜end▁of▁sentence｜>", "<｜end▁of▁sentence｜>")
_THINK = ("<think>\n", "\n</think>\n\n", "")

NATIVE: dict[str, Native] = {
    "deepseek_r1": Native(_SENTENCE, None, (*_THINK[:2], "\n</think>\n\n")),
    "deepseek_v3": Native(_SENTENCE),
    "deepseek_v3_1": Native(
        _SENTENCE, None, ("<think>", "</think>", "</think>"), variables={"thinking": True}
    ),
    "deepseek_v3_tools": Native(_SENTENCE, _deepseek),
    "gemma3": Native(("<end_of_turn>", "<end_of_turn>")),
    "gemma4": Native(
        ("<turn|>", "<|tool_response>"),
        _gemma,
        ("<|channel>thought\n", "\n<channel|>", ""),
        text_beside_calls=False,
        variables={"enable_thinking": True},
    ),
    "glm4_5": _Glm(
        ("<|user|>", "<|observation|>"),
        _glm_lines,
        ("\n<think>", "</think>", "\n<think></think>"),
    ),
    "glm4_7": Native(
        ("<|user|>", "<|observation|>"), _glm_line, ("<think>", "</think>", "</think>")
    ),
    "gpt_oss": _Harmony(
        ("<|return|>", "<|call|>"),
        _hermes,
        ("", "", ""),
        many_calls=False,
        text_beside_calls=False,
    ),
    "hermes_2_pro": Native(_IM_END, _hermes, text_beside_calls=False),
    "kimi_k2": Native(_IM_END, _kimi),
    "kimi_k2_thinking": Native(_IM_END, _kimi, ("<think>", "</think>", "<think></think>")),
    "llama3_1": Native(
        ("<|eot_id|>", "<|eot_id|>"), _llama, many_calls=False, text_beside_calls=False
    ),
    "llama3_2": Native(
        ("<|eot_id|>", "<|eot_id|>"), _llama, many_calls=False, text_beside_calls=False
    ),
    "llama4": Native(("<|eot|>", "<|eot|>"), _llama4),
    "ministral_3": Native(_EOS, _mistral_names, ("[THINK]", "[/THINK]", "")),
    "mistral_nemo": Native(_EOS, _mistral_list, text_beside_calls=False),
    "mistral_small_3_2": Native(_EOS, _mistral_ids, text_beside_calls=False),
    "phi3": Native(("<|end|>", "<|end|>")),
    "phi4": Native(_IM_END),
    "phi4_mini": Native(("<|end|>", "<|end|>"), _phi),
    "qwen2_5": Native(_IM_END, _hermes),
    "qwen3": Native(_IM_END, _hermes, _THINK),
    "qwen3_5": Native(_IM_END, _qwen_xml, (*_THINK[:2], "\n</think>\n\n")),
    "qwen3_coder": Native(_IM_END, _qwen_xml),
    "smollm2": Native(_IM_END),
    "smollm3": Native(_IM_END, _hermes, ("<think>\n", "\n</think>\n", "")),
}
