"""The lock of a model's folder: one holder, who is named, and whose end frees it."""

import os
import signal
import socket
import sys
import textwrap
from pathlib import Path

import pytest

from art.errors import CheckpointError, ModelInUseError
from art.runs.lock import ModelLock, read_holder
from tests.processes import Child, run_python

HOLD = """
    import sys, time
    from art.runs.lock import ModelLock
    lock = ModelLock(sys.argv[1])
    lock.acquire()
    print("held", flush=True)
    time.sleep(600)
"""


def hold(folder: Path) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(HOLD), str(folder)]


def test_a_second_process_is_refused_with_the_name_of_the_first(tmp_path: Path) -> None:
    with Child(*hold(tmp_path / "m")) as holder:
        holder.read_line("held")
        with pytest.raises(ModelInUseError) as caught:
            ModelLock(tmp_path / "m").acquire()
        named = read_holder(tmp_path / "m")
        assert named is not None
        assert (named.pid, named.host) == (holder.pid, socket.gethostname())
        for part in (str(holder.pid), named.host, named.since, "another name"):
            assert part in str(caught.value)


def test_a_holder_that_is_killed_frees_it(tmp_path: Path) -> None:
    with Child(*hold(tmp_path)) as holder:
        holder.read_line("held")
        holder.send_signal(signal.SIGKILL)
        holder.wait(-signal.SIGKILL)
    lock = ModelLock(tmp_path)
    lock.acquire()
    named = read_holder(tmp_path)
    assert named is not None
    assert named.pid == os.getpid()
    lock.release()


def test_a_child_of_the_holder_does_not_keep_it(tmp_path: Path) -> None:
    code = """
        import subprocess, sys
        from art.runs.lock import ModelLock
        ModelLock(sys.argv[1]).acquire()
        child = subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        print(child.pid)
    """
    child = int(run_python(code, tmp_path).stdout)
    try:
        ModelLock(tmp_path).acquire()
    finally:
        os.kill(child, signal.SIGKILL)


def test_one_process_excludes_itself_until_it_releases(tmp_path: Path) -> None:
    first, second = ModelLock(tmp_path), ModelLock(tmp_path)
    first.acquire()
    first.acquire()
    with pytest.raises(ModelInUseError, match=r"another backend of this process.*backend\.close"):
        second.acquire()
    assert (first.held, second.held) == (True, False)
    first.release()
    first.release()
    assert read_holder(tmp_path) is None
    second.acquire()
    second.release()


@pytest.mark.parametrize("text", [None, "{", "[]", '{"pid": 1}'])
def test_a_holder_whose_name_cannot_be_read_is_respected(tmp_path: Path, text: str | None) -> None:
    first = ModelLock(tmp_path)
    first.acquire()
    (tmp_path / "training.lock.json").unlink()
    if text is not None:
        (tmp_path / "training.lock.json").write_text(text)
    with pytest.raises(ModelInUseError, match="by another process"):
        ModelLock(tmp_path).acquire()
    first.release()


def test_a_folder_that_cannot_be_made_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be locked for training"):
        ModelLock(tmp_path / "file").acquire()
