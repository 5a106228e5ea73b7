"""Metrics of a step: their names and their means."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from art.runs.metrics import split_metrics, step_metrics
from art.trajectories import Trajectory, TrajectoryGroup


def test_names_without_a_section_get_the_split_in_front() -> None:
    metrics = {"reward": 1.0, "loss/train": 2.0, "data/step_num_tokens": 3, "a/b": 4, "data": 5}
    assert split_metrics(metrics, "train") == {
        "train/reward": 1.0,
        "loss/train": 2.0,
        "data/step_num_tokens": 3.0,
        "train/a/b": 4.0,
        "train/data": 5.0,
    }
    assert split_metrics({"val/reward": 1.0}, "train") == {"val/reward": 1.0}
    assert split_metrics({"val/reward": 1.0}, "holdout") == {"holdout/val/reward": 1.0}


def test_means_are_over_trajectories_and_over_groups() -> None:
    groups = [
        TrajectoryGroup(
            [
                Trajectory(reward=1, metrics={"turns": 2, "won": True}),
                Trajectory(reward=0, metrics={"turns": 4}),
                ValueError("x"),
            ],
            metrics={"judge": 0.5},
        ),
        TrajectoryGroup([Trajectory(reward=0.5, metrics={"won": False})], metrics={"judge": 1.5}),
        TrajectoryGroup([], exceptions=[ValueError("y")], metrics={"judge": 100}),
    ]
    assert step_metrics(groups) == {
        "reward": 0.5,
        "turns": 3.0,
        "won": 0.5,
        "exception_rate": 0.4,
        "group_judge": 1.0,
        "reward_std_dev": 0.5,
    }
    assert step_metrics([]) == {"reward_std_dev": 0.0}


@given(st.lists(st.lists(st.floats(-1e3, 1e3), max_size=6), max_size=5))
def test_reward_statistics_agree_with_numpy(rewards: list[list[float]]) -> None:
    metrics = step_metrics([TrajectoryGroup([Trajectory(reward=r) for r in g]) for g in rewards])
    flat = [reward for group in rewards for reward in group]
    if flat:
        assert metrics["reward"] == pytest.approx(np.mean(flat), abs=1e-9)
    spread = [np.std(group) for group in rewards if len(group) > 1]
    expected = np.mean(spread) if spread else 0.0
    assert metrics["reward_std_dev"] == pytest.approx(expected, abs=1e-6)


def test_numbers_that_are_not_finite_do_not_stop_logging() -> None:
    group = TrajectoryGroup([Trajectory(reward=math.inf), Trajectory(reward=0.0)])
    metrics = step_metrics([group])
    assert metrics["reward"] == math.inf
    assert math.isnan(metrics["reward_std_dev"])
    assert math.isnan(step_metrics([TrajectoryGroup([Trajectory(reward=math.nan)])])["reward"])


def test_numbers_of_other_libraries_are_averaged() -> None:
    metrics = {"score": np.float32(0.5), "count": np.array([3])}
    assert split_metrics(metrics, "val") == {"val/score": 0.5, "val/count": 3.0}  # type: ignore[arg-type]
    groups = []
    for reward in (np.float32(0.25), np.array(0.75)):
        trajectory = Trajectory()
        trajectory.reward = reward  # type: ignore[assignment]  # as users do
        trajectory.metrics["score"] = reward  # type: ignore[assignment]
        groups.append(TrajectoryGroup([trajectory]))
    means = step_metrics(groups)
    assert (means["reward"], means["score"]) == (0.5, 0.5)
    assert {type(value) for value in means.values()} == {float}
