"""The servers that are attacked, each in a process and a sandbox of its own."""

import json
import os
import re
import secrets
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests import engine_server
from tests.processes import Child, wait_until_gone

_LOGGED = re.compile(r"(?:[0-9:. -]+)?(?:ERROR|CRITICAL)\b")
_RAISED = re.compile(r"[\w.]+(?:Error|Exception|Disconnect|Exit|Interrupt)\b")
# Uvicorn answers a body whose chunks are none with 400, and logs that the application is too late.
_ANSWERED_BY_UVICORN = "h11._util.LocalProtocolError"
_ROOT_ENTRIES = ("checkpoints", "checkpoints.lock", "scratch-")


@dataclass(frozen=True)
class Target:
    """A running server.

    Attributes:
        base_url: Its address, without a path.
        api_key: The key that it demands.
        base_model: The model that an engine serves.
        pid: Its process.
        process: The process whose output has its log; of servers that were forked, their parent.
        sandbox: The folder that it may change: ``root`` inside, and nothing else.
    """

    base_url: str
    api_key: str
    base_model: str
    pid: int
    process: Child
    sandbox: Path

    @property
    def root(self) -> Path:
        """The folder of an engine's checkpoints."""
        return self.sandbox / "root"

    def kill(self) -> None:
        """Kill it (SIGKILL), and wait for its end."""
        os.kill(self.pid, signal.SIGKILL)
        if self.pid == self.process.pid:
            self.process.wait()
        else:
            wait_until_gone(self.pid)

    def faults(self) -> list[str]:
        """The errors in its log, each with its exception: faults of the server.

        Its answers may have said otherwise.
        """
        faults: list[str] = []
        for line in self.process.stderr.split("\n"):
            if _LOGGED.match(line):
                faults.append(line)
            elif faults and _RAISED.match(line):
                faults[-1] += f" | {line}"
        return [fault for fault in faults if _ANSWERED_BY_UVICORN not in fault]

    def strays(self) -> list[str]:
        """Whatever lies in the sandbox where nothing may be."""
        outside = [
            path
            for path in self.sandbox.rglob("*")
            if self.root not in (path, *path.parents)
            and path.name not in ("home", "tmp", "root")
            and ".cache" not in path.parts
        ]
        inside = [path for path in self.root.glob("*") if not path.name.startswith(_ROOT_ENTRIES)]
        return sorted(str(path.relative_to(self.sandbox)) for path in (*outside, *inside))


StartTarget = Callable[[Path], Target]
"""Starts an engine on ``sandbox / "root"``."""


def _sandboxed(sandbox: Path) -> dict[str, str | None]:
    for name in ("home", "tmp"):
        (sandbox / name).mkdir(parents=True, exist_ok=True)
    return {
        "HOME": str(sandbox / "home"),
        "TMPDIR": str(sandbox / "tmp"),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "OMP_NUM_THREADS": "1",
    }


class UnigramServers:
    """Starts engines around the tiny executor, in milliseconds.

    Args:
        sandbox: The folder that all of them start in; it becomes their home.
    """

    def __init__(self, sandbox: Path) -> None:
        self._process = Child(
            sys.executable,
            "-m",
            "tests.attack.unigram_server",
            env=_sandboxed(sandbox),
            cwd=sandbox,
            stdin=True,
        )

    def begin(self, sandbox: Path) -> tuple[int, Callable[[], Target]]:
        """Start one on ``sandbox / "root"`` and do not wait for it.

        Returns:
            Its process, and what waits until it is ready.
        """
        api_key = "tml-" + secrets.token_urlsafe(8)
        options = {"root": str(sandbox / "root"), "api_key": api_key}
        self._process.write(json.dumps(options) + "\n")
        pid: int = json.loads(self._process.read_line('"forked"'))["pid"]

        def ready() -> Target:
            said = json.loads(self._process.read_line(f'"ready", "pid": {pid},'))
            return Target(said["base_url"], api_key, "unigram", pid, self._process, sandbox)

        return pid, ready

    def start(self, sandbox: Path) -> Target:
        """Start one on ``sandbox / "root"``."""
        _, ready = self.begin(sandbox)
        return ready()

    def close(self) -> None:
        """End the program and all of its servers."""
        self._process.close_stdin()
        self._process.wait()


@contextmanager
def unigram_servers(sandbox: Path) -> Iterator[UnigramServers]:
    """The program that starts engines around the tiny executor."""
    servers = UnigramServers(sandbox)
    try:
        yield servers
    finally:
        servers.close()


def start_art_serve(base_model: Path, sandbox: Path) -> Target:
    """Start a real ``art serve`` on ``sandbox / "root"``."""
    (sandbox / "root").mkdir(parents=True, exist_ok=True)
    engine = engine_server.start(base_model, sandbox / "root")
    return Target(
        engine.base_url,
        engine.api_key,
        engine.base_model,
        engine.process.pid,
        engine.process,
        sandbox,
    )


@contextmanager
def endpoint(base_model: Path, sandbox: Path) -> Iterator[Target]:
    """The OpenAI-compatible endpoint with scripted samples."""
    with Child(
        sys.executable,
        "-m",
        "tests.attack.endpoint_server",
        base_model,
        env=_sandboxed(sandbox),
        cwd=sandbox,
        stdin=True,
    ) as process:
        said = json.loads(process.read_line('"ready"', timeout=120))
        yield Target(said["base_url"], said["api_key"], "org/base", said["pid"], process, sandbox)
