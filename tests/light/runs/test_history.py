import json
import logging
import math
import multiprocessing
from pathlib import Path
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from art.errors import CheckpointError, ConfigurationError
from art.runs import history
from art.trajectories import Trajectory, TrajectoryGroup


def append_many(folder: Path, writer: int) -> None:
    for index in range(50):
        history.append_history(folder, {"writer": writer, "x" * 500: index}, step=index)


class TestRows:
    def test_round_trip(self, tmp_path: Path) -> None:
        folder = tmp_path / "not" / "there" / "yet"
        assert history.read_history(folder) == []
        history.append_history(folder, {"train/reward": 0.5, "é": 1}, step=3)
        history.append_history(folder, {"val/reward": math.nan, "x": math.inf}, step=4)
        first, second = history.read_history(folder)
        assert (first["train/reward"], first["é"], first["step"]) == (0.5, 1, 3)
        assert set(second) == {"step", "recorded_at"}

    def test_a_torn_line_costs_no_other_row(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        history.append_history(tmp_path, {"a": 1}, step=1)
        history.append_history(tmp_path, {"a": 2}, step=2)
        path = tmp_path / history.HISTORY
        whole = path.read_bytes()
        for size in range(whole.index(b"\n") + 2, len(whole) - 1):
            path.write_bytes(whole[:size])
            caplog.clear()
            with caplog.at_level(logging.WARNING):
                assert [row["a"] for row in history.read_history(tmp_path)] == [1]
            assert "line 2 is incomplete" in caplog.text
            history.append_history(tmp_path, {"a": 3}, step=3)
            assert [row["a"] for row in history.read_history(tmp_path)] == [1, 3]

    def test_processes_share_the_file(self, tmp_path: Path) -> None:
        context = multiprocessing.get_context("spawn")
        writers = [context.Process(target=append_many, args=(tmp_path, n)) for n in range(2)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(60)
            assert writer.exitcode == 0
        rows = history.read_history(tmp_path)
        for number in range(2):
            steps = [row["step"] for row in rows if row["writer"] == number]
            assert steps == list(range(50))


@given(
    st.lists(
        st.tuples(
            st.integers(0, 4),
            st.one_of(st.none(), st.just("text"), st.integers(-3, 3), st.just(0.5)),
        )
    )
)
def test_best_step(samples: list[tuple[int, object]]) -> None:
    rows = [{"step": step, **({} if v is None else {"m": v})} for step, v in samples]
    best, best_mean = None, -math.inf
    for step in range(5):
        values = [v for s, v in samples if s == step and isinstance(v, int | float)]
        if values and fmean(values) >= best_mean:
            best, best_mean = step, fmean(values)
    assert history.best_step(rows, "m") == best


class TestTrajectories:
    def test_round_trip(self, tmp_path: Path) -> None:
        path = history.trajectories_path(tmp_path, "train", 7)
        assert path == tmp_path / "trajectories" / "train" / "0007.jsonl"
        groups = [
            TrajectoryGroup([Trajectory(reward=1, logs=["a\nb\u2028"]), ValueError("x")]),
            TrajectoryGroup([]),
        ]
        history.append_trajectory_groups(path, groups)
        assert len(path.read_bytes().splitlines()) == 2
        read = history.read_trajectory_groups(path)
        assert [group.model_dump() for group in read] == [group.model_dump() for group in groups]
        assert list(path.parent.iterdir()) == [path]

    def test_a_step_that_is_logged_again_loses_nothing(self, tmp_path: Path) -> None:
        path = history.trajectories_path(tmp_path, "train", 1)
        history.append_trajectory_groups(path, [TrajectoryGroup([Trajectory(reward=1)])])
        with path.open("ab") as file:
            file.write(b'{"trajectories": [{"rew')  # a crash
        history.append_trajectory_groups(path, [TrajectoryGroup([Trajectory(reward=2)])])
        read = history.read_trajectory_groups(path)
        assert [trajectory.reward for group in read for trajectory in group] == [1, 2]

    def test_a_split_is_a_folder_name(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="split"):
            history.trajectories_path(tmp_path, "../train", 1)


class TestState:
    def test_round_trip(self, tmp_path: Path) -> None:
        assert history.read_state(tmp_path) is None
        history.write_state(tmp_path, {"a": {"b": [1, None]}})
        assert history.read_state(tmp_path) == {"a": {"b": [1, None]}}

    def test_a_failed_write_leaves_the_file_as_it_was(self, tmp_path: Path) -> None:
        history.write_state(tmp_path, {"a": 1})
        with pytest.raises(TypeError):
            history.write_state(tmp_path, {"a": object()})
        with pytest.raises(UnicodeEncodeError):
            history._replace(tmp_path / history.STATE, "half \ud800")
        assert history.read_state(tmp_path) == {"a": 1}
        assert [path.name for path in tmp_path.iterdir()] == [history.STATE]

    @pytest.mark.parametrize("text", ["", "{", "[1]", json.dumps("x")])
    def test_a_damaged_file_is_an_error(self, tmp_path: Path, text: str) -> None:
        (tmp_path / history.STATE).write_text(text)
        with pytest.raises(CheckpointError, match=r"state\.json"):
            history.read_state(tmp_path)
