"""Progress on a terminal: bars of tqdm, closed however the work ends."""

import io
from contextlib import redirect_stderr

import pytest

from art.runs.progress import terminal_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def last_line(output: io.StringIO) -> str:
    return output.getvalue().replace("\r", "\n").strip().splitlines()[-1]


def test_a_bar_shows_units_total_and_values() -> None:
    with redirect_stderr(Terminal()) as output, terminal_progress("step 3", 2) as progress:
        progress.advance(0, {"stage": "sampling"})
        assert "stage=sampling" in last_line(output)
        progress.expect(3)
        progress.advance(2, {"reward": 0.5})
    line = last_line(output)
    assert line.startswith("step 3: ")
    assert "2/3" in line
    assert "reward=0.5" in line
    assert "stage" not in line


def test_a_bar_is_closed_when_the_work_raises() -> None:
    def work() -> None:
        with terminal_progress("step 3", 2) as progress:
            progress.advance(1)
            raise KeyError

    with redirect_stderr(Terminal()) as output, pytest.raises(KeyError):
        work()
    assert output.getvalue().endswith("\n")


def test_work_of_unknown_size_shows_its_values_and_time() -> None:
    with redirect_stderr(Terminal()) as output, terminal_progress("starting", None) as progress:
        progress.advance(0, {"stage": "loading"})
        assert last_line(output) == "starting (00:00, stage=loading)"


def test_work_of_unknown_size_writes_nothing_where_the_output_is_no_terminal() -> None:
    with redirect_stderr(io.StringIO()) as output, terminal_progress("starting", None) as progress:
        progress.advance(0, {"stage": "loading"})
    assert output.getvalue() == ""
