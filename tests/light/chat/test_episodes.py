"""Recorded tokens and the next prompt agree, or the turn is a sequence of its own and counted."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from art.rl.sequences import training_batch
from art.trajectories import Trajectory, TrajectoryGroup
from tests.light.chat.episodes import Episode, Scripted
from tests.light.chat.families import FAMILIES, Family, family
from tests.light.chat.native import NATIVE, Arguments
from tests.light.chat.test_families import ARGUMENTS

# Anything a model or a user may write, markup of all families included.
MARKUP = st.sampled_from(
    [
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        '{"name": "search", "arguments": {"query": "x"}}',
        "<function=search>",
        "<|channel|>final<|message|>",
        "<|start|>assistant",
        "[TOOL_CALLS]",
        "```json\n{}\n```",
        "\n\n",
        " ",
        "{{ x }}",
    ]
)
ANY_TEXT = st.lists(st.text(st.characters(exclude_categories=["Cs"])) | MARKUP, max_size=6).map(
    "".join
)


@st.composite
def token_ids(draw: st.DrawFn, each: Family) -> list[int]:
    """Tokens as sampled: text, perhaps in an encoding of its own, and special tokens anywhere."""
    size = len(each.tokenizer)
    tokens: list[int] = []
    for _ in range(draw(st.integers(1, 4))):
        tokens += draw(st.lists(st.integers(0, size - 1), max_size=6) | ANY_TEXT.map(each.encode))
    end = draw(st.sampled_from([*each.template.end_of_turn_ids, None]))
    return tokens or [0] if end is None else [*tokens, end]


@st.composite
def native_turn(draw: st.DrawFn, each: Family) -> Scripted:
    native = NATIVE[each.name]
    calls: list[Arguments] = draw(st.lists(ARGUMENTS, max_size=2)) if native.calls else []
    reasoning = draw(st.none() | ANY_TEXT) if native.thinking else None
    content = draw(ANY_TEXT)
    return Scripted(content, reasoning, calls if native.many_calls else calls[:1])


@pytest.mark.parametrize("name", FAMILIES)
@given(data=st.data())
@settings(max_examples=10)
def test_tokens_agree_with_the_next_prompt_or_the_turn_is_counted(
    name: str, data: st.DataObject
) -> None:
    each = family(name)
    episode = Episode(each)
    episode.say(data.draw(ANY_TEXT.filter(bool)))
    turns = data.draw(st.integers(2, 4))
    for _ in range(turns):
        if data.draw(st.booleans()):
            episode.sample(data.draw(native_turn(each)))
        else:
            episode.sample_tokens(data.draw(token_ids(each)), data.draw(ANY_TEXT))
        if episode.messages[-1]["role"] == "assistant":
            episode.say(data.draw(ANY_TEXT.filter(bool)))
    # The conversation goes on, whatever the model wrote.
    assert episode.prompt()
    check_training_data(episode)


def check_training_data(episode: Episode) -> None:
    """Compare the training data of an episode with its recorded tokens."""
    recorded: list[tuple[list[int], list[int]]] = []
    for choice in episode.choices:
        extra: dict[str, Any] = choice.model_extra or {}
        recorded.append((extra["prompt_token_ids"], extra["token_ids"]))
    group = TrajectoryGroup(
        [
            Trajectory(messages_and_choices=list(episode.choices), reward=reward)
            for reward in (1.0, 0.0)
        ]
    )
    batch = training_batch([group])
    sequences = batch.sequences[: len(batch.sequences) // 2]

    # Every token that was sampled is trained once, after the prompt that it was sampled from.
    trained = 0
    for prompt, tokens in recorded:
        places = [
            each
            for each in sequences
            if each.tokens[: len(prompt) + len(tokens)].tolist() == prompt + tokens
            and each.mask[len(prompt) : len(prompt) + len(tokens)].all()
        ]
        assert places
        trained += len(tokens)
    assert sum(int(each.mask.sum()) for each in sequences) == trained
    assert all(np.isfinite(each.logprobs).all() for each in sequences)

    # A turn whose prompt does not begin with all that came before is counted.
    ends: list[list[int]] = []
    for prompt, tokens in recorded:
        extended = [end for end in ends if prompt[: len(end)] == end]
        if extended:
            ends.remove(max(extended, key=len))
        ends.append(prompt + tokens)
    assert len(ends) == len(sequences)
    assert batch.metrics["data/step_num_rewritten_turns"] == 2 * (len(ends) - 1)
