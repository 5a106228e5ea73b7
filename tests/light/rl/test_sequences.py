"""Training sequences: the exact tokens that were sampled, joined where turns extend each other."""

import copy
import logging
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat.chat_completion import Choice

from art.errors import (
    InvalidRewardError,
    NoTrainableTokensError,
    TrainingDataError,
)
from art.rl.sequences import TrainingSequence, training_batch
from art.trajectories import History, Trajectory, TrajectoryGroup

# A turn: prompt tokens, sampled tokens, and the logprob of each of these.
Turn = tuple[list[int], list[int], list[float]]


def make_choice(turn: Turn, **extra: Any) -> Choice:
    prompt, tokens, logprobs = turn
    content: list[dict[str, Any]] = [
        {"token": str(token), "bytes": None, "logprob": logprob, "top_logprobs": []}
        for token, logprob in zip(tokens, logprobs, strict=True)
    ]
    return Choice.model_validate(
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "text that is not read"},
            "logprobs": {"content": content},
            "prompt_token_ids": prompt,
            "token_ids": tokens,
            **extra,
        }
    )


def sampled(prompt: list[int], tokens: list[int]) -> Choice:
    return make_choice((prompt, tokens, [-token / 10 for token in tokens]))


def trajectory_of(*choices: Choice, reward: float = 0.0) -> Trajectory:
    items: list[Any] = []
    for choice in choices:
        items += [{"role": "user", "content": "context"}, choice]
    return Trajectory(messages_and_choices=items, reward=reward)


def pair(trajectory: Trajectory) -> TrajectoryGroup:
    """A group in which `trajectory` teaches something: rewards 1 and 0."""
    trajectory.reward = 1.0
    return TrajectoryGroup([trajectory, trajectory_of(sampled([1], [9]))])


def plain(sequence: TrainingSequence) -> tuple[list[int], list[float], list[bool], float]:
    assert sequence.tokens.dtype == np.int64
    assert sequence.logprobs.dtype == np.float32
    assert sequence.mask.dtype == np.bool_
    return (
        sequence.tokens.tolist(),
        [round(float(logprob), 5) for logprob in sequence.logprobs],
        sequence.mask.tolist(),
        round(sequence.advantage, 9),
    )


def test_a_turn_becomes_one_sequence_with_its_samples_masked() -> None:
    batch = training_batch([pair(trajectory_of(sampled([5, 6], [7, 8])))])
    assert [plain(sequence) for sequence in batch.sequences] == [
        ([5, 6, 7, 8], [0, 0, -0.7, -0.8], [False, False, True, True], 1.0),
        ([1, 9], [0, -0.9], [False, True], -1.0),
    ]
    assert batch.metrics == {
        "data/step_num_groups_submitted": 1.0,
        "data/step_num_groups_trainable": 1.0,
        "data/step_num_groups_dropped": 0.0,
        "data/step_num_groups_failed": 0.0,
        "data/step_num_trajectories": 2.0,
        "data/step_num_trajectories_dropped": 0.0,
        "data/step_num_sequences": 2.0,
        "data/step_num_rewritten_turns": 0.0,
        "data/step_num_tokens": 6.0,
        "data/step_trainer_tokens": 3.0,
    }


def test_a_turn_that_extends_the_earlier_ones_joins_them() -> None:
    batch = training_batch(
        [
            pair(
                trajectory_of(
                    sampled([1, 2], [3]),
                    sampled([1, 2, 3, 4, 5], [6]),
                    sampled([1, 2, 3, 4, 5, 6], [7]),
                )
            )
        ]
    )
    assert plain(batch.sequences[0]) == (
        [1, 2, 3, 4, 5, 6, 7],
        [0, 0, -0.3, 0, 0, -0.6, -0.7],
        [False, False, True, False, False, True, True],
        1.0,
    )


def test_a_turn_whose_history_was_rewritten_stands_alone() -> None:
    # The template drops the earlier thought, token 3, from the second prompt.
    batch = training_batch(
        [pair(trajectory_of(sampled([1, 2], [3, 4]), sampled([1, 2, 4, 5], [6])))]
    )
    assert [plain(each)[0] for each in batch.sequences[:2]] == [[1, 2, 3, 4], [1, 2, 4, 5, 6]]
    assert batch.metrics["data/step_num_rewritten_turns"] == 1
    assert [plain(each)[2] for each in batch.sequences[:2]] == [
        [False, False, True, True],
        [False, False, False, False, True],
    ]


def test_a_turn_joins_the_longest_sequence_that_it_extends() -> None:
    first, aside, third = sampled([1], [2]), sampled([9], [8]), sampled([1, 2, 3], [4])
    batch = training_batch([pair(trajectory_of(first, aside, third))])
    assert [plain(each)[0] for each in batch.sequences[:2]] == [[1, 2, 3, 4], [9, 8]]


def test_a_longer_sample_of_the_same_prompt_wins() -> None:
    short, long = sampled([1], [2]), sampled([1], [2, 3])
    batch = training_batch([pair(trajectory_of(short, long, sampled([1, 2, 3, 0], [4])))])
    assert [plain(each)[0] for each in batch.sequences[:2]] == [[1, 2], [1, 2, 3, 0, 4]]


def test_the_same_prompt_twice_is_two_sequences() -> None:
    batch = training_batch([pair(trajectory_of(sampled([1], [2]), sampled([1], [2])))])
    assert [plain(each)[0] for each in batch.sequences[:2]] == [[1, 2], [1, 2]]


def test_additional_histories_stand_on_their_own() -> None:
    trajectory = trajectory_of(sampled([1], [2]))
    trajectory.additional_histories = [
        History(messages_and_choices=[sampled([1, 2, 3], [4])]),
        History(messages_and_choices=[{"role": "user", "content": "no completion"}]),
    ]
    batch = training_batch([pair(trajectory)])
    assert [plain(each)[0] for each in batch.sequences[:2]] == [[1, 2], [1, 2, 3, 4]]
    assert [each.advantage for each in batch.sequences] == [1.0, 1.0, -1.0]


def test_a_completion_without_tokens_adds_nothing() -> None:
    batch = training_batch([pair(trajectory_of(sampled([1], []), sampled([1, 2], [3])))])
    assert plain(batch.sequences[0])[0] == [1, 2, 3]


def test_a_group_of_equal_rewards_is_dropped_and_counted() -> None:
    equal = TrajectoryGroup([trajectory_of(sampled([1], [2]), reward=0.5) for _ in range(3)])
    batch = training_batch([equal, pair(trajectory_of(sampled([5], [6]))), equal])
    assert [plain(each)[0] for each in batch.sequences] == [[5, 6], [1, 9]]
    assert batch.metrics["data/step_num_groups_dropped"] == 2
    assert batch.metrics["data/step_num_groups_trainable"] == 1
    assert batch.metrics["data/step_num_trajectories"] == 8
    nothing = training_batch([equal])
    assert nothing.sequences == []
    assert nothing.metrics["data/step_num_groups_dropped"] == 1
    assert nothing.metrics["data/step_num_trajectories"] == 3
    assert training_batch([]).metrics["data/step_num_groups_submitted"] == 0


def test_advantages_are_those_of_the_group() -> None:
    def group() -> TrajectoryGroup:
        return TrajectoryGroup(
            [trajectory_of(sampled([1], [2]), reward=reward) for reward in (1, 0, 0, 0)]
        )

    normalized = training_batch([group()]).sequences
    assert [each.advantage for each in normalized] == pytest.approx([3**0.5, *[-(3**-0.5)] * 3])
    centred = training_batch([group()], normalize_advantages=False).sequences
    assert [each.advantage for each in centred] == [0.75, -0.25, -0.25, -0.25]


# Four tokens only, so that prompts often extend what came before.
token = st.integers(0, 3)


@st.composite
def conversations(draw: st.DrawFn) -> list[Turn]:
    """Turns; most prompts extend an earlier turn's tokens, some rewrite them."""
    turns: list[Turn] = []
    for _ in range(draw(st.integers(1, 5))):
        base: list[int] = []
        if turns and draw(st.integers(0, 3)) > 0:
            earlier: Turn = draw(st.sampled_from(turns))
            base = earlier[0] + earlier[1]
        prompt: list[int] = base + draw(st.lists(token, min_size=0 if base else 1, max_size=3))
        tokens: list[int] = draw(st.lists(token, min_size=1, max_size=3))
        logprobs = draw(st.lists(st.integers(-9, 0), min_size=len(tokens), max_size=len(tokens)))
        turns.append((prompt, tokens, [float(each) for each in logprobs]))
    return turns


def slow_reference(turns: list[Turn]) -> list[list[tuple[int, float, bool]]]:
    """Each sequence as rows of token, logprob and mask: the rule in its plainest form."""
    sequences: list[list[tuple[int, float, bool]]] = []
    for prompt, tokens, logprobs in turns:
        best = None
        for sequence in sequences:
            so_far = [row[0] for row in sequence]
            longer = best is None or len(sequence) > len(best)
            if prompt[: len(so_far)] == so_far and longer:
                best = sequence
        if best is None:
            best = []
            sequences.append(best)
        best.extend((each, 0.0, False) for each in prompt[len(best) :])
        best.extend((each, logprob, True) for each, logprob in zip(tokens, logprobs, strict=True))
    return sequences


@settings(max_examples=200)
@given(st.lists(conversations(), min_size=2, max_size=4), st.booleans())
def test_sequences_agree_with_a_plain_reference(
    episodes: list[list[Turn]], as_histories: bool
) -> None:
    trajectories = []
    for number, turns in enumerate(episodes):
        choices = [make_choice(turn) for turn in turns]
        trajectory = trajectory_of(*choices, reward=number)
        if as_histories:
            trajectory = Trajectory(
                reward=number,
                additional_histories=[History(messages_and_choices=list(choices))],
            )
        trajectories.append(trajectory)
    group = TrajectoryGroup(trajectories)
    before = copy.deepcopy(group)
    batch = training_batch([group])
    assert group == before

    expected = [rows for turns in episodes for rows in slow_reference(turns)]
    assert [
        list(zip(each.tokens.tolist(), each.logprobs.tolist(), each.mask.tolist(), strict=True))
        for each in batch.sequences
    ] == expected

    # Every sampled token is trained exactly once, with its own logprob.
    given_out: Counter[tuple[int, float]] = Counter()
    for each in batch.sequences:
        given_out.update(
            zip(each.tokens[each.mask].tolist(), each.logprobs[each.mask].tolist(), strict=True)
        )
        assert not each.mask[0]
        assert not each.logprobs[~each.mask].any()
    taken_in = Counter(
        row
        for turns in episodes
        for _, tokens, logprobs in turns
        for row in zip(tokens, logprobs, strict=True)
    )
    assert given_out == taken_in
    assert batch.metrics["data/step_trainer_tokens"] == taken_in.total()
    assert batch.metrics["data/step_num_tokens"] == sum(len(rows) for rows in expected)


class TestBadTrajectories:
    """One of them is left out, said and counted; where it is the only one, it is an error."""

    def left_out(
        self, bad: Trajectory, caplog: pytest.LogCaptureFixture, error: type[Exception]
    ) -> str:
        group = pair(trajectory_of(sampled([5], [6])))
        expected = [plain(each) for each in training_batch([group]).sequences]
        group.trajectories.insert(1, bad)
        with caplog.at_level(logging.WARNING):
            batch = training_batch([group])
        assert [plain(each) for each in batch.sequences] == expected
        assert batch.metrics["data/step_num_trajectories"] == 3
        assert batch.metrics["data/step_num_trajectories_dropped"] == 1
        assert "1 of 3 trajectories are left out" in caplog.text
        assert "group 0, trajectory 1" in caplog.text
        with pytest.raises(error, match="None of the step's 2 trajectories") as caught:
            training_batch([TrajectoryGroup([bad]), TrajectoryGroup([bad])])
        assert type(caught.value.__cause__) is type(caught.value)
        return caplog.text

    @pytest.mark.parametrize("reward", [math.nan, math.inf, -math.inf, None, "high", 10**400])
    def test_without_a_finite_reward(self, reward: Any, caplog: pytest.LogCaptureFixture) -> None:
        bad = trajectory_of(sampled([1], [2]))
        bad.reward = reward
        assert "must be a finite number" in self.left_out(bad, caplog, InvalidRewardError)

    @pytest.mark.parametrize(
        ("extra", "missing"),
        [
            ({"token_ids": None}, "no token_ids"),
            ({"prompt_token_ids": None}, "no prompt_token_ids"),
            ({"logprobs": None}, "no logprobs.content"),
            ({"token_ids": None, "logprobs": None}, "no token_ids and no logprobs.content"),
        ],
    )
    def test_with_a_choice_without_its_tokens(
        self, extra: dict[str, Any], missing: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        bad = trajectory_of(sampled([1], [2]), make_choice(([1], [2], [-1.0]), **extra))
        text = self.left_out(bad, caplog, NoTrainableTokensError)
        assert f"messages_and_choices[3] of group 0, trajectory 1 has {missing}" in text
        assert "model.openai_client()" in text

    def test_with_an_additional_history_without_tokens(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        bad = trajectory_of(sampled([1], [2]))
        foreign = make_choice(([1], [2], [-1.0]), token_ids=None)
        bad.additional_histories = [History(messages_and_choices=[foreign])]
        assert "additional_histories[0]" in self.left_out(bad, caplog, NoTrainableTokensError)

    @pytest.mark.parametrize("items", [[], [{"role": "assistant", "content": "text"}]])
    def test_without_completions(self, items: Any, caplog: pytest.LogCaptureFixture) -> None:
        bad = Trajectory(messages_and_choices=items)
        assert "There is nothing to train on" in self.left_out(bad, caplog, NoTrainableTokensError)

    def test_with_a_choice_that_is_none(self, caplog: pytest.LogCaptureFixture) -> None:
        bad = trajectory_of(sampled([1], [2]))
        item: Any = {"message": "hi"}
        bad.messages_and_choices.append(item)
        assert "is no Choice" in self.left_out(bad, caplog, TrainingDataError)

    @pytest.mark.parametrize(
        ("turn", "extra", "message"),
        [
            (([1], [2, 3], [-1.0, -1.0]), {"token_ids": [2]}, "1 token_ids but 2 logprobs"),
            (([1], [2], [math.nan]), {}, "not finite"),
            (([1], [2], [-math.inf]), {}, "not finite"),
            (([], [2], [-1.0]), {}, "no prompt tokens"),
            (([1], [2], [-1.0]), {"token_ids": ["x"]}, "token_ids"),
            (([1], [2], [-1.0]), {"token_ids": [2.5]}, "token_ids"),
            (([1], [2], [-1.0]), {"prompt_token_ids": [[1]]}, "prompt_token_ids"),
            (([1], [2], [-1.0]), {"prompt_token_ids": [-1]}, "prompt_token_ids"),
            (([1], [2], [-1.0]), {"prompt_token_ids": 7}, "prompt_token_ids"),
        ],
    )
    def test_with_tokens_that_contradict_each_other(
        self, turn: Turn, extra: dict[str, Any], message: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        bad = trajectory_of(make_choice(turn, **extra))
        assert message in self.left_out(bad, caplog, TrainingDataError)


def test_groups_whose_rollouts_failed_are_left_out_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failed = TrajectoryGroup([ValueError("out of paper"), ValueError("y")])
    batch = training_batch([failed, pair(trajectory_of(sampled([5], [6]))), TrajectoryGroup([])])
    assert [plain(each)[0] for each in batch.sequences] == [[5, 6], [1, 9]]
    assert batch.metrics["data/step_num_groups_failed"] == 2
    assert batch.metrics["data/step_num_groups_dropped"] == 2
    assert batch.metrics["data/step_num_groups_trainable"] == 1
    assert "Group 0 is left out" in caplog.text
    assert "2 rollouts that failed; the first: out of paper" in caplog.text
    assert training_batch([failed]).sequences == []


def test_a_choice_that_went_through_litellm_is_trained_on() -> None:
    # litellm keeps what it does not know of a choice in provider_specific_fields.
    choice = sampled([5, 6], [7, 8])
    extra = dict(choice.model_extra or {})
    moved = Choice.model_validate(
        {
            **{name: value for name, value in choice.model_dump().items() if name not in extra},
            "provider_specific_fields": extra,
        }
    )
    assert plain(training_batch([pair(trajectory_of(moved))]).sequences[0]) == plain(
        training_batch([pair(trajectory_of(choice))]).sequences[0]
    )


def test_rewards_of_other_libraries_are_numbers() -> None:
    group = pair(trajectory_of(sampled([5, 6], [7, 8])))
    expected = [plain(each) for each in training_batch([group]).sequences]
    group.trajectories[0].reward = np.float32(1)  # type: ignore[assignment]  # as users do
    group.trajectories[1].reward = np.zeros((1, 1))  # type: ignore[assignment]
    assert [plain(each) for each in training_batch([group]).sequences] == expected
