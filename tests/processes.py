"""Child processes of tests: run to the end, or start, read, signal and end.

Every child gets SIGINT as a terminal's foreground job has it. Without that a test run in the
background of a script (``nohup make test &``), whose children inherit an ignored SIGINT, could not
press Ctrl-C on any of them.
"""

import os
import queue
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO

ROOT = Path(__file__).parents[1]
"""The folder of the repository."""

Environment = Mapping[str, str | None]
"""Changes to the variables of this process; ``None`` takes one away."""


def run(
    *command: str | Path,
    status: int | None = 0,
    timeout: float = 120,
    cwd: Path | None = None,
    env: Environment | None = None,
    inherit_env: bool = True,
    stdin: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end.

    Args:
        command: The program and its arguments.
        status: The exit status that it must have; ``None`` allows any. A process that a signal
            ended has the signal's number, negated.
        timeout: Seconds until it is killed.
        cwd: The folder that it runs in; ``None`` is the current one.
        env: Changes to the environment.
        inherit_env: Whether it starts from this process's variables; ``False``: from none.
        stdin: The text that it reads; ``None`` is an empty input.

    Returns:
        The exit status and the texts of stdout and stderr.

    Raises:
        AssertionError: It ended with another status, or not in time. Its output is in the message.
    """
    try:
        result = subprocess.run(
            [str(part) for part in command],
            input=stdin or "",
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            check=False,
            cwd=cwd,
            env=_variables(env, inherit=inherit_env),
            preexec_fn=_PREPARE,
        )
    except subprocess.TimeoutExpired as error:
        said = _described(_text(error.stdout), _text(error.stderr))
        raise AssertionError(f"{_shown(command)} has run for {timeout:g} s\n{said}") from error
    if status is not None and result.returncode != status:
        said = _described(result.stdout, result.stderr)
        raise AssertionError(
            f"{_shown(command)} ended with {result.returncode}, not {status}\n{said}"
        )
    return result


def run_python(
    code: str,
    *arguments: str | Path,
    flags: tuple[str, ...] = (),
    python: Path | None = None,
    status: int | None = 0,
    timeout: float = 120,
    cwd: Path | None = None,
    env: Environment | None = None,
    inherit_env: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter; see :func:`run`.

    Args:
        code: A program; the indentation that all of its lines share is taken away.
        arguments: Its ``sys.argv[1:]``.
        flags: Options of the interpreter, such as ``("-I", "-S")``.
        python: The interpreter; ``None`` is the one that runs the tests.
        status: As in :func:`run`.
        timeout: As in :func:`run`.
        cwd: As in :func:`run`.
        env: As in :func:`run`.
        inherit_env: As in :func:`run`.

    Raises:
        AssertionError: As in :func:`run`.
    """
    return run(
        python or sys.executable,
        *flags,
        "-c",
        textwrap.dedent(code),
        *arguments,
        status=status,
        timeout=timeout,
        cwd=cwd,
        env=env,
        inherit_env=inherit_env,
    )


def run_art(
    *arguments: str | Path,
    status: int | None = 0,
    timeout: float = 120,
    env: Environment | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run the command ``art`` to its end; see :func:`run`."""
    return run(*art_command(*arguments), status=status, timeout=timeout, env=env)


def art_command(*arguments: str | Path) -> list[str]:
    """The command line of ``art`` in the environment that runs the tests."""
    return [sys.executable, "-m", "art.cli", *map(str, arguments)]


class Child:
    """A running program, killed at the end of the ``with`` block unless it ended before.

    Its output is read all the time, so a full pipe never stops it.

    Args:
        command: The program and its arguments.
        cwd: The folder that it runs in; ``None`` is the current one.
        env: Changes to the environment.
        stdin: Whether it gets an input that stays open until :meth:`close_stdin`. Without one its
            input is empty.
    """

    def __init__(
        self,
        *command: str | Path,
        cwd: Path | None = None,
        env: Environment | None = None,
        stdin: bool = False,
    ) -> None:
        self._command = command
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._stdout: list[str] = []
        self._stderr: list[str] = []
        self._process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            cwd=cwd,
            env=_variables(env),
            preexec_fn=_PREPARE,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._readers = [
            threading.Thread(target=self._read_stdout, args=(self._process.stdout,), daemon=True),
            threading.Thread(target=self._read_stderr, args=(self._process.stderr,), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> "Child":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def stdout(self) -> str:
        """The text that it has written to stdout so far."""
        return "".join(self._stdout)

    @property
    def stderr(self) -> str:
        """The text that it has written to stderr so far."""
        return "".join(self._stderr)

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def read_line(self, containing: str = "", *, timeout: float = 60) -> str:
        """Read stdout up to the first line with a text in it, and return that line.

        Args:
            containing: The text; empty takes the next line. Lines before it are passed over, and
                are in :attr:`stdout` all the same.
            timeout: Seconds to wait.

        Raises:
            AssertionError: It ended without such a line, or wrote none in time.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise self._failure(f"wrote no {containing!r} within {timeout:g} s") from None
            if line is None:
                self._lines.put(None)
                raise self._failure(f"ended without writing {containing!r}")
            if containing in line:
                return line.rstrip("\n")

    def write(self, text: str) -> None:
        """Write to its stdin."""
        assert self._process.stdin is not None, "started without stdin"
        self._process.stdin.write(text)
        self._process.stdin.flush()

    def close_stdin(self) -> None:
        """End its stdin, as the end of its parent would."""
        assert self._process.stdin is not None, "started without stdin"
        self._process.stdin.close()

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, such as ``signal.SIGINT`` for Ctrl-C."""
        self._process.send_signal(number)

    def wait(self, status: int | None = None, *, timeout: float = 60) -> int:
        """Wait until it has ended and all of its output is read.

        Args:
            status: The exit status that it must have; ``None`` allows any.
            timeout: Seconds to wait.

        Returns:
            The exit status; a signal's number, negated, where one ended it.

        Raises:
            AssertionError: It did not end in time, or ended with another status.
        """
        try:
            found = self._process.wait(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            raise self._failure(f"has not ended within {timeout:g} s") from error
        for reader in self._readers:
            # A child of its own may hold the pipe open for longer.
            reader.join(timeout=5)
        if status is not None and found != status:
            raise self._failure(f"ended with {found}, not {status}")
        return found

    def kill(self) -> None:
        """Kill it at once, if it runs (SIGKILL), and wait for its end."""
        if self.is_running:
            self._process.kill()
        self.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _read_stdout(self, pipe: IO[str]) -> None:
        with pipe:
            for line in pipe:
                self._stdout.append(line)
                self._lines.put(line)
        self._lines.put(None)

    def _read_stderr(self, pipe: IO[str]) -> None:
        with pipe:
            self._stderr.extend(pipe)

    def _failure(self, what: str) -> AssertionError:
        said = _described(self.stdout, self.stderr)
        return AssertionError(f"{_shown(self._command)} {what}\n{said}")


def wait_until_gone(pid: int, *, timeout: float = 10) -> None:
    """Wait for the end of a process that is nobody's child here.

    Args:
        pid: The process id.
        timeout: Seconds to wait.

    Raises:
        AssertionError: The process still runs.
    """
    import psutil

    deadline = time.monotonic() + timeout
    while True:
        try:
            # A process that ended is a zombie until somebody asks for its exit status.
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return
        except psutil.NoSuchProcess:
            return
        assert time.monotonic() < deadline, f"process {pid} still runs after {timeout:g} s"
        time.sleep(0.05)


def _default_sigint() -> None:
    """Let Ctrl-C end this process, which is a child between fork and exec."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


# On Windows a child has no signal dispositions to inherit, and Popen refuses the argument.
_PREPARE = None if sys.platform == "win32" else _default_sigint


def _variables(changes: Environment | None, *, inherit: bool = True) -> dict[str, str]:
    merged = {**(os.environ if inherit else {}), **(changes or {})}
    return {name: value for name, value in merged.items() if value is not None}


def _shown(command: tuple[str | Path, ...]) -> str:
    text = " ".join(map(str, command))
    return f"`{text if len(text) <= 200 else f'{text[:200]} …'}`"


def _described(stdout: str, stderr: str) -> str:
    return f"--- stdout\n{stdout[-8000:]}\n--- stderr\n{stderr[-8000:]}"


def _text(output: bytes | str | None) -> str:
    # A timeout leaves bytes, whatever encoding was asked for.
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""
