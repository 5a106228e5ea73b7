"""The embedded engine as a child process on loopback.

The child is ``python -m art.cli serve … --child``: it takes its key from the environment, reports
its loading and its address as JSON lines on standard output, logs to a file, and runs as long as
its standard input is open. The operating system closes that pipe when this process ends, however
it ends, so an engine never outlives its owner.
"""

import asyncio
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable
from concurrent.futures import Future
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TypeVar

from art._internal.network import new_key
from art.errors import (
    ArtError,
    CheckpointError,
    ConfigurationError,
    EngineDiedError,
    EngineStartError,
    MissingExtraError,
    UnknownBaseModelError,
)
from art.runs.progress import ShowProgress, terminal_progress
from art.tinker.connection import Connection

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Time in which the end of a child is noticed, in seconds. The SDK alone would retry for minutes.
_LIVENESS_PERIOD = 0.25
_LOG_LINES_SHOWN = 15
# Errors of a child that its user can mend, and that are raised again as the same type.
_REPORTED: dict[str, type[ArtError]] = {
    kind.__name__: kind for kind in (CheckpointError, ConfigurationError, UnknownBaseModelError)
}


class EngineProcess:
    """An engine in a child process.

    Attributes:
        base_url: Its address, such as ``"http://127.0.0.1:40123"``.
        api_key: The key that it demands, new for each launch.
        log_path: The file that its standard error goes to.
    """

    base_url: str

    def __init__(self, base_model: str, root: Path, arguments: tuple[str, ...] = ()) -> None:
        """Start the child; :meth:`wait_until_ready` waits for it.

        Args:
            base_model: The model to load.
            root: The folder of its checkpoints and its log.
            arguments: Further arguments of ``art serve``.

        Raises:
            MissingExtraError: The engine is not installed.
        """
        for module in ("torch", "transformers", "peft"):
            if find_spec(module) is None:
                raise MissingExtraError("art.local.LocalBackend", module, "local")
        root.mkdir(parents=True, exist_ok=True)
        self.base_model = base_model
        self.api_key = new_key("tml-")
        self.log_path = root / "engine.log"
        self._stage = "starting"
        self._ready: Future[str] = Future()
        command = [sys.executable, "-m", "art.cli", "serve", base_model, "--root", str(root)]
        with self.log_path.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                [*command, "--port", "0", "--child", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "ART_ENGINE_API_KEY": self.api_key},
                text=True,
                encoding="utf-8",
            )
        assert self._process.stdout is not None
        threading.Thread(
            target=self._read_events, args=(self._process.stdout,), name="art-engine", daemon=True
        ).start()

    async def wait_until_ready(self, show_progress: ShowProgress = terminal_progress) -> None:
        """Wait until the engine answers.

        Args:
            show_progress: Shows the stages of its start.

        Raises:
            EngineStartError: It ended before it was ready; the message ends with its log.
            ArtError: It reported why it cannot start (an unknown base model, say).
        """
        ready = asyncio.wrap_future(self._ready)
        try:
            with show_progress(f"engine of {Path(self.base_model).name}", None) as progress:
                while not ready.done():
                    progress.advance(0, {"stage": self._stage})
                    await asyncio.wait({ready}, timeout=0.2)
            self.base_url = ready.result()
        except BaseException:
            self.close()
            raise
        logger.info("engine ready at %s (log: %s)", self.base_url, self.log_path)

    @property
    def alive(self) -> bool:
        """``True`` while the child runs."""
        return self._process.poll() is None

    async def guard(self, awaitable: Awaitable[T]) -> T:
        """Await a call to the engine, but no longer than the engine lives.

        Args:
            awaitable: A call to the engine. It is cancelled when the engine dies.

        Returns:
            The call's result.

        Raises:
            EngineDiedError: The engine's process ended before the call did.
        """
        task = asyncio.ensure_future(awaitable)
        try:
            while not task.done() and self.alive:
                await asyncio.wait({task}, timeout=_LIVENESS_PERIOD)
            if task.done() and (self.alive or not _failed(task)):
                return task.result()
        finally:
            task.cancel()
        raise EngineDiedError(
            f"the engine of {self.base_model} {self._how_it_ended()} during a call. "
            "Checkpoints saved before are intact: register the model again to go on from "
            f"the last one.{self._log_tail()}"
        )

    def close(self) -> None:
        """End the child and wait for it. Does nothing the second time."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read_events(self, stdout: IO[str]) -> None:
        """Follow the child's events until it ends. Runs in a thread of its own."""
        with stdout:
            for line in stdout:
                event = json.loads(line)
                if event["event"] == "loading":
                    self._stage = event["stage"]
                    logger.info("engine of %s: %s", self.base_model, self._stage)
                elif event["event"] == "ready":
                    self._ready.set_result(event["base_url"])
                elif event["event"] == "error":
                    self._ready.set_exception(self._start_error(event["type"], event["message"]))
        self._process.wait()
        if not self._ready.done():
            message = f"the engine of {self.base_model} {self._how_it_ended()} while it started."
            self._ready.set_exception(EngineStartError(message + self._log_tail()))

    def _start_error(self, kind: str, message: str) -> ArtError:
        """Make the error that the child reported, of the same type where a user can mend it."""
        known = _REPORTED.get(kind)
        if known is not None:
            return known(message)
        return EngineStartError(
            f"the engine of {self.base_model} could not start: {kind}: {message}. "
            f"Its log has the details: {self.log_path}"
        )

    def _how_it_ended(self) -> str:
        code = self._process.poll()
        return f"was killed by signal {-code}" if code and code < 0 else f"exited with code {code}"

    def _log_tail(self) -> str:
        with self.log_path.open("rb") as log:
            log.seek(self._log_start)
            lines = log.read().decode(errors="replace").splitlines()
        return "".join(f"\n  {line}" for line in ["Its log ends:", *lines[-_LOG_LINES_SHOWN:]])


@dataclass(frozen=True)
class EngineConnection(Connection):
    """A connection to an engine that this process has started."""

    engine: EngineProcess = field(repr=False)

    async def guard(self, awaitable: Awaitable[T]) -> T:
        """Await an answer, but no longer than the engine lives, nor beyond its silence.

        Raises:
            EngineDiedError: The engine's process ended before it answered.
            EngineUnreachableError: It is stopped, or hangs.
        """
        return await self.engine.guard(super().guard(awaitable))


def _failed(task: "asyncio.Future[T]") -> bool:
    return task.cancelled() or task.exception() is not None
