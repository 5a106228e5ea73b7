"""History: rows of metrics that survive crashes and that processes can share."""

import logging
import math
import multiprocessing
from pathlib import Path
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from art.errors import CheckpointError
from art.runs.history import HISTORY, append_metrics, best_step, read_history


def append_many(folder: Path, writer: int) -> None:
    for index in range(50):
        append_metrics(folder, {"writer": writer, "x" * 500: index}, step=index)


def test_rows_come_back_without_what_json_cannot_hold(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there" / "yet"
    assert read_history(folder) == []
    append_metrics(folder, {"train/reward": 0.5, "é": 1}, step=3)
    append_metrics(folder, {"val/reward": math.nan, "x": math.inf}, step=4)
    first, second = read_history(folder)
    assert (first["train/reward"], first["é"], first["step"]) == (0.5, 1, 3)
    assert set(second) == {"step", "recorded_at"}


def test_a_line_that_a_crash_cut_short_costs_no_other_row(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    append_metrics(tmp_path, {"a": 1}, step=1)
    append_metrics(tmp_path, {"a": 2}, step=2)
    path = tmp_path / HISTORY
    whole = path.read_bytes()
    for size in range(whole.index(b"\n") + 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert [row["a"] for row in read_history(tmp_path)] == [1]
        assert "line 2 is incomplete" in caplog.text
        append_metrics(tmp_path, {"a": 3}, step=3)
        assert [row["a"] for row in read_history(tmp_path)] == [1, 3]


def test_processes_share_the_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=append_many, args=(tmp_path, n)) for n in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    rows = read_history(tmp_path)
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
def test_the_best_step_has_the_greatest_mean_and_is_the_latest_of_equals(
    samples: list[tuple[int, object]],
) -> None:
    rows = [{"step": step, **({} if v is None else {"m": v})} for step, v in samples]
    best, best_mean = None, -math.inf
    for step in range(5):
        values = [v for s, v in samples if s == step and isinstance(v, int | float)]
        if values and fmean(values) >= best_mean:
            best, best_mean = step, fmean(values)
    assert best_step(rows, "m") == best


def test_rows_that_are_damaged_or_lack_a_step_are_passed_over(tmp_path: Path) -> None:
    rows = [b"[" * 100_000, b"\xff", b'{"val/reward": 9}', b'{"val/reward": 1, "step": 3}', b""]
    (tmp_path / HISTORY).write_bytes(b"\n".join(rows))
    assert best_step(read_history(tmp_path), "val/reward") == 3


def test_a_history_that_cannot_be_read_or_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / HISTORY).mkdir()
    with pytest.raises(CheckpointError, match=r"history\.jsonl cannot be read"):
        read_history(tmp_path)
    with pytest.raises(CheckpointError, match=r"history\.jsonl cannot be written"):
        append_metrics(tmp_path, {"a": 1.0}, 0)
