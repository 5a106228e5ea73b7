"""Trajectories on disk: what is written comes back, and nothing that was logged is lost."""

from pathlib import Path

import pytest

from art.errors import ConfigurationError
from art.runs.trajectories import (
    append_trajectory_groups,
    read_trajectory_groups,
    trajectories_path,
)
from art.trajectories import Trajectory, TrajectoryGroup


def test_groups_come_back_one_a_line(tmp_path: Path) -> None:
    path = trajectories_path(tmp_path, "train", 7)
    assert path == tmp_path / "trajectories" / "train" / "0007.jsonl"
    groups = [
        TrajectoryGroup([Trajectory(reward=1, logs=["a\nb\u2028"]), ValueError("x")]),
        TrajectoryGroup([]),
    ]
    append_trajectory_groups(path, groups)
    assert len(path.read_bytes().splitlines()) == 2
    read = read_trajectory_groups(path)
    assert [group.model_dump() for group in read] == [group.model_dump() for group in groups]
    assert list(path.parent.iterdir()) == [path]


def test_a_step_that_is_logged_again_loses_nothing(tmp_path: Path) -> None:
    path = trajectories_path(tmp_path, "train", 1)
    append_trajectory_groups(path, [TrajectoryGroup([Trajectory(reward=1)])])
    with path.open("ab") as file:
        file.write(b'{"trajectories": [{"rew')  # a crash
    append_trajectory_groups(path, [TrajectoryGroup([Trajectory(reward=2)])])
    read = read_trajectory_groups(path)
    assert [trajectory.reward for group in read for trajectory in group] == [1, 2]


def test_a_split_that_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="split"):
        trajectories_path(tmp_path, "../train", 1)
