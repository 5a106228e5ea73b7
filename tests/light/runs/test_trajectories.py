"""Trajectories on disk: what is written comes back, and nothing that was logged is lost."""

import math
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

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


any_text = st.text(st.characters(), max_size=5)  # with halves of surrogate pairs


@example("\ud800", {"\udfff": math.nan}, "a\n\u2028")
@given(any_text, st.dictionaries(any_text, st.floats()), any_text)
def test_any_text_is_read_as_it_was(text: str, metrics: dict[str, float], message: str) -> None:
    trajectory = Trajectory(
        messages_and_choices=[{"role": "user", "content": text, "name": text}],
        metrics=metrics,
        metadata={text: text},
        logs=[text],
    )
    group = TrajectoryGroup([trajectory, ValueError(message)])
    with tempfile.TemporaryDirectory() as folder:
        path = trajectories_path(Path(folder), "train", 1)
        append_trajectory_groups(path, [group])
        path.read_text(encoding="utf-8")
        [read] = read_trajectory_groups(path)
    assert repr(read.model_dump()) == repr(group.model_dump())


def test_fields_of_subclasses_are_written_and_not_in_the_way(tmp_path: Path) -> None:
    class OwnGroup(TrajectoryGroup):
        scenario: str

    path = trajectories_path(tmp_path, "train", 1)
    own: Any = OwnGroup([], scenario="chess")  # type: ignore[call-arg]
    append_trajectory_groups(path, [own, TrajectoryGroup([Trajectory(reward=1)])])
    assert b'"scenario":"chess"' in path.read_bytes()
    assert [len(group) for group in read_trajectory_groups(path)] == [0, 1]


def test_a_split_that_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="split"):
        trajectories_path(tmp_path, "../train", 1)
