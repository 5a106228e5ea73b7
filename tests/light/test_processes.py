"""The tests' own means to run and to end child processes."""

import signal
import sys
from pathlib import Path

import pytest

from tests.processes import Child, run, run_python

SAY_AND_WAIT = "import time; print('one'); print('two', flush=True); time.sleep(600)"
PRESS_CTRL_C = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)  # as nohup and `make test &` leave it
from tests.processes import Child
with Child(sys.executable, "-c", sys.argv[1]) as child:
    child.read_line("two")
    child.send_signal(signal.SIGINT)
    print(child.wait())
"""


def test_a_program_gets_arguments_variables_and_a_folder(tmp_path: Path) -> None:
    code = """
        import os, sys
        print(sys.argv[1:], os.environ.get("ADDED"), "HOME" in os.environ, os.getcwd())
    """
    ran = run_python(code, "a", "b", cwd=tmp_path, env={"ADDED": "yes", "HOME": None})
    assert ran.stdout == f"['a', 'b'] yes False {tmp_path}\n"


def test_a_program_reads_what_it_is_given() -> None:
    code = "import sys; print(sys.stdin.read())"
    assert run(sys.executable, "-c", code, stdin="é").stdout == "é\n"
    assert run(sys.executable, "-c", code).stdout == "\n"


def test_an_unexpected_status_shows_the_output() -> None:
    code = "import sys; print('half'); sys.exit('torn')"
    with pytest.raises(AssertionError, match=r"ended with 1, not 0\n(?s:.*)half\n(?s:.*)torn"):
        run_python(code)
    assert run_python(code, status=1).stderr == "torn\n"
    assert run_python(code, status=None).returncode == 1


def test_a_program_that_hangs_is_killed_and_shows_its_output() -> None:
    with pytest.raises(AssertionError, match=r"has run for 1 s\n(?s:.*)one\ntwo"):
        run_python(SAY_AND_WAIT, timeout=1)


def test_a_child_is_read_line_by_line_and_killed() -> None:
    with Child(sys.executable, "-c", SAY_AND_WAIT) as child:
        assert child.read_line("tw") == "two"
        assert child.stdout == "one\ntwo\n"
        with pytest.raises(AssertionError, match="wrote no 'three' within"):
            child.read_line("three", timeout=0.1)
        with pytest.raises(AssertionError, match="has not ended within"):
            child.wait(timeout=0.1)
        assert child.is_running
    assert not child.is_running


def test_a_child_that_ends_too_early_shows_its_output() -> None:
    with Child(sys.executable, "-c", "print('one'); 1 / 0") as child:
        with pytest.raises(AssertionError, match=r"(?s)ended without writing 'two'.*one"):
            child.read_line("two")
        with pytest.raises(AssertionError, match=r"(?s)ended with 1, not 0.*ZeroDivisionError"):
            child.wait(0)
        assert child.wait(1) == 1


def test_a_child_with_stdin_ends_with_it() -> None:
    code = "import sys; print(sys.stdin.readline(), end='', flush=True); sys.stdin.read()"
    with Child(sys.executable, "-c", code, stdin=True) as child:
        child.write("hello\n")
        assert child.read_line() == "hello"
        child.close_stdin()
        assert child.wait() == 0


def test_output_beyond_a_full_pipe_does_not_stop_a_child() -> None:
    with Child(sys.executable, "-c", "print('x' * 1_000_000)") as child:
        child.wait(0)
        assert len(child.stdout) == 1_000_001


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_reaches_a_child_where_the_tests_run_in_the_background() -> None:
    root = Path(__file__).parents[2]
    ran = run_python(PRESS_CTRL_C, SAY_AND_WAIT, cwd=root, env={"PYTHONPATH": str(root)})
    assert ran.stdout == f"{-signal.SIGINT}\n"
