"""Every family's turns end, call tools, think and join as its published template has it."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from art.chat.template import ChatTemplate
from art.errors import ChatTemplateError
from tests.light.chat.episodes import TOOLS, Episode, Scripted, arguments_of
from tests.light.chat.families import DATA, FAMILIES, family
from tests.light.chat.family_table import family_table
from tests.light.chat.native import NATIVE, Arguments

WITH_TOOLS = [name for name in FAMILIES if NATIVE[name].calls]
THINKING = [name for name in FAMILIES if NATIVE[name].thinking]

# Text that no format takes for markup, and that no template trims.
WORDS = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Z"], exclude_characters="<>[]{}|｜▁`"),
    min_size=1,
    max_size=12,
)
TEXT = st.lists(WORDS, min_size=1, max_size=4).map(" ".join)
ARGUMENTS: st.SearchStrategy[Arguments] = st.fixed_dictionaries(
    {"query": TEXT},
    optional={
        "limit": st.integers(-(10**9), 10**9),
        "exact": st.booleans(),
        "tags": st.lists(TEXT, max_size=2),
        "filters": st.dictionaries(st.sampled_from(["a", "b"]), st.integers(0, 9) | TEXT),
    },
)


def test_every_family_says_where_its_template_comes_from() -> None:
    assert set(NATIVE) == set(FAMILIES)
    for name in FAMILIES:
        source = family(name).source
        assert all(source[key] for key in ("model", "source", "licence", "tokens_from")), name
        assert (DATA / name / "chat_template.jinja").stat().st_size > 100


@pytest.mark.parametrize("name", FAMILIES)
def test_turns_end_at_the_familys_own_tokens(name: str) -> None:
    each = family(name)
    ends = each.template.end_of_turn_ids
    after_message, after_calls = NATIVE[name].ends
    assert ends[0] == each.ids(after_message)[0]
    if NATIVE[name].calls:
        assert each.ids(after_calls)[0] in ends


def test_a_message_inside_of_a_harmony_turn_does_not_end_it() -> None:
    assert family("gpt_oss").ids("<|end|>")[0] not in family("gpt_oss").template.end_of_turn_ids


def test_llama_may_end_a_turn_to_wait_for_a_tool() -> None:
    assert family("llama3_1").ids("<|eom_id|>")[0] in family("llama3_1").template.end_of_turn_ids


@pytest.mark.parametrize("name", FAMILIES)
def test_tools_are_shown_or_refused(name: str) -> None:
    episode = Episode(family(name))
    episode.say("hi")
    template = family(name).template
    if name in WITH_TOOLS:
        assert "Look something up." in family(name).text(episode.prompt())
        without = family(name).text(template.prompt_token_ids(episode.messages))
        assert "Look something up." not in without
    else:
        with pytest.raises(ChatTemplateError, match="does not show tools"):
            template.prompt_token_ids(episode.messages, TOOLS)


@pytest.mark.parametrize("name", FAMILIES)
@given(content=TEXT, reasoning=st.none() | TEXT)
@settings(max_examples=25)
def test_a_message_and_its_thinking_are_read_as_the_model_wrote_them(
    name: str, content: str, reasoning: str | None
) -> None:
    episode = Episode(family(name))
    episode.say("hi")
    reasoning = reasoning if name in THINKING else None
    parsed = episode.sample(Scripted(content, reasoning))
    assert parsed.content == content
    assert (parsed.reasoning or None) == reasoning
    assert not parsed.tool_calls


@pytest.mark.parametrize("name", WITH_TOOLS)
@given(
    content=TEXT,
    reasoning=st.none() | TEXT,
    calls=st.lists(ARGUMENTS, min_size=1, max_size=3),
)
@settings(max_examples=40)
def test_calls_are_read_as_the_model_wrote_them(
    name: str, content: str, reasoning: str | None, calls: list[Arguments]
) -> None:
    native = NATIVE[name]
    episode = Episode(family(name))
    episode.say("hi")
    parsed = episode.sample(
        Scripted(
            content if native.text_beside_calls else "",
            reasoning if native.thinking else None,
            calls if native.many_calls else calls[:1],
        )
    )
    assert arguments_of(parsed) == (calls if native.many_calls else calls[:1])
    assert {call.name for call in parsed.tool_calls} == {"search"}
    assert parsed.content == (content if native.text_beside_calls else "")
    assert (parsed.reasoning or None) == (reasoning if native.thinking else None)


@pytest.mark.parametrize("name", WITH_TOOLS)
def test_calls_in_the_history_are_shown_as_the_model_wrote_them(name: str) -> None:
    episode = Episode(family(name))
    episode.say("hi")
    prompt = family(name).text(episode.prompt())
    calls: list[Arguments] = [{"query": "ferns", "limit": 3}]
    episode.sample(Scripted("", "hm" if name in THINKING else None, calls))
    history = family(name).text(episode.prompt())
    assert "7 results" in history
    native = NATIVE[name].calls
    assert native is not None
    if name != "gpt_oss":
        # vLLM's template for DeepSeek writes spaces of its own.
        written = "".join(native("", calls).split())
        assert written in "".join(history.removeprefix(prompt).split())


@pytest.mark.parametrize("name", THINKING)
def test_a_call_drafted_in_thinking_is_not_carried_out(name: str) -> None:
    episode = Episode(family(name))
    episode.say("hi")
    native = NATIVE[name]
    calls: list[Arguments] = [{"query": "ferns"}]
    draft = "I could write " + (native.calls("", calls) if native.calls else "it") + " here."
    parsed = episode.sample(Scripted("", draft, calls))
    if name == "gpt_oss":
        # The draft is not in its format, which has no place for a call in thinking.
        assert len(parsed.tool_calls) == 1
    elif native.calls:
        assert arguments_of(parsed) == calls
        assert parsed.reasoning == draft
    assert parsed.reasoning is not None


@pytest.mark.parametrize("name", sorted(set(THINKING) - {"gpt_oss"}))
def test_thinking_that_never_ends_is_all_thinking(name: str) -> None:
    episode = Episode(family(name))
    episode.say("hi")
    native = NATIVE[name]
    written = native.turn(family(name).text(episode.prompt()), "", "I wonder", [])
    assert native.thinking is not None
    unfinished = written[: written.index("I wonder") + len("I wonder")]
    parsed = episode.sample_tokens(family(name).encode(unfinished), "")
    assert parsed.reasoning == "I wonder"
    assert parsed.content == ""
    assert not parsed.tool_calls


@pytest.mark.parametrize("name", WITH_TOOLS)
def test_several_calls_in_the_history_are_all_shown(name: str) -> None:
    function = {"name": "search", "arguments": '{"query": "ferns"}'}
    second = {"name": "search", "arguments": '{"query": "mosses"}'}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "call_long_1", "type": "function", "function": function},
                {"id": "call_long_2", "type": "function", "function": second},
            ],
        },
        {"role": "tool", "tool_call_id": "call_long_1", "content": "seven"},
        {"role": "tool", "tool_call_id": "call_long_2", "content": "nine"},
    ]
    text = family(name).text(family(name).template.prompt_token_ids(messages, TOOLS))
    assert [word for word in ("ferns", "mosses", "seven", "nine") if word not in text] == []


@pytest.mark.parametrize("arguments", ["", None, "{}", {}])
@pytest.mark.parametrize("name", WITH_TOOLS)
def test_a_call_without_arguments_in_the_history_is_shown(name: str, arguments: object) -> None:
    function = {"name": "search", "arguments": arguments}
    call = {"id": "c1", "type": "function", "function": function}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "seven"},
    ]
    prompts = family(name).template.prompt_token_ids(messages, TOOLS)
    text = family(name).text(prompts)
    assert "seven" in text
    assert "null" not in text.partition("hi")[2]


@pytest.mark.parametrize("name", WITH_TOOLS)
def test_tools_without_description_or_parameters_are_shown(name: str) -> None:
    bare = {"type": "function", "function": {"name": "look_around"}}
    template: ChatTemplate = family(name).template
    text = family(name).text(template.prompt_token_ids([{"role": "user", "content": "hi"}], [bare]))
    assert "look_around" in text


def test_the_page_says_what_is_measured() -> None:
    page = (Path(__file__).parents[3] / "docs" / "chat-families.md").read_text("utf-8")
    assert "\n".join(family_table()) in page
