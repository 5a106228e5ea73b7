"""``art serve``: load a base model and answer the Tinker wire on a port.

As a child (``child=True``) it tells its parent what happens as JSON lines on standard output, and
ends at once when its standard input does, which the operating system closes when the parent ends,
however it ends.
"""

import asyncio
import json
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import uvicorn

from art._internal.network import base_url, bind, new_key
from art.errors import ConfigurationError
from art.executors.registry import ExecutorOptions, check_executors, load_executors

logger = logging.getLogger(__name__)

API_KEY_VARIABLE = "ART_ENGINE_API_KEY"
_KEY_PREFIX = "tml-"  # the SDK refuses any other
_SHUTDOWN_S = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """Options of a server: the model, the address, the executors.

    Attributes:
        base_model: A folder, or a name on the Hugging Face hub; clients ask for it by this text.
        trainer: The name of the executor that trains; see :mod:`art.executors.registry`.
        sampler: The name of the executor that samples.
        root: The folder for checkpoints.
        host: The address to listen on.
        port: 0 takes a free one.
        device: As torch names it; ``"auto"`` takes the best there is.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"auto"``.
        child: Whether a parent process listens on standard output and holds standard input.
    """

    base_model: str
    root: Path
    host: str = "127.0.0.1"
    port: int = 0
    device: str = "auto"
    dtype: str = "auto"
    trainer: str = "torch"
    sampler: str = "torch"
    child: bool = False


def serve(options: ServeOptions) -> None:
    """Serve until a signal ends it.

    Args:
        options: What to serve, and where.

    Raises:
        ConfigurationError: ``ART_ENGINE_API_KEY`` is set to what the SDK would refuse.
        PortInUseError: The port is taken.
        UnknownBaseModelError: The base model cannot be found.
        CheckpointError: The folder for checkpoints cannot be used.
    """
    announcer: _Announcer = _ChildAnnouncer() if options.child else _Announcer(sys.stdout)
    if options.child:
        threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    try:
        check_executors(options.trainer, options.sampler)
        api_key = _api_key()
        with bind(options.host, options.port) as listener:
            asyncio.run(_serve(options, listener, api_key, announcer))
    except Exception as error:
        announcer.failed(error)
        raise


async def _serve(
    options: ServeOptions, listener: socket.socket, api_key: str, announcer: "_Announcer"
) -> None:
    # Importing torch and the SDK takes seconds: a port in use or a bad key is said before that.
    from art.engine.app import create_app
    from art.engine.core import Engine
    from art.engine.wire.results import encode

    trainer, sampler = await asyncio.to_thread(
        load_executors,
        options.trainer,
        options.sampler,
        ExecutorOptions(base_model=options.base_model, device=options.device, dtype=options.dtype),
        announcer.loading,
    )
    engine = await asyncio.to_thread(lambda: Engine(trainer, sampler, options.root, encode=encode))
    config = uvicorn.Config(
        create_app(engine, api_key=api_key),
        log_config=None,
        access_log=False,
        lifespan="on",
        ws="none",
        timeout_graceful_shutdown=_SHUTDOWN_S,
    )
    server = _Server(config, lambda: announcer.ready(base_url(listener), api_key))
    try:
        await server.serve(sockets=[listener])
    finally:
        if engine.busy:
            # A long computation cannot be interrupted, and the interpreter would wait for it.
            logger.warning("ending during a computation; checkpoints on disk are whole")
            logging.shutdown()
            os._exit(1)


class _Server(uvicorn.Server):
    """A server that says when it has started."""

    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_start()


def _api_key() -> str:
    key = os.environ.get(API_KEY_VARIABLE)
    if key is None:
        return new_key(_KEY_PREFIX)
    if not key.startswith(_KEY_PREFIX):
        raise ConfigurationError(
            f"{API_KEY_VARIABLE} must start with {_KEY_PREFIX!r}: the tinker SDK takes no other key"
        )
    return key


def _end_with_parent() -> None:
    """Wait for the end of standard input, then end this process."""
    while os.read(0, 4096):
        pass
    os._exit(0)


class _Announcer:
    """Tells a person what happens."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def loading(self, stage: str, fraction: float) -> None:
        """A stage of loading began, or came so far."""
        if fraction == 0.0:
            self._write(f"{stage} …")

    def ready(self, base_url: str, api_key: str) -> None:
        """The server answers."""
        self._write(
            f"\nServing on {base_url} (end it with Ctrl-C). Use it from another shell:\n\n"
            f"  export TINKER_BASE_URL={base_url}\n"
            f"  export TINKER_API_KEY={api_key}\n"
        )

    def failed(self, error: Exception) -> None:
        """The server cannot go on; whoever called it reports the error."""

    def _write(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()


class _ChildAnnouncer(_Announcer):
    """Tells the parent process, as JSON lines."""

    def __init__(self) -> None:
        # What a library prints must not come between the lines: it goes to standard error.
        events = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        super().__init__(events)

    def loading(self, stage: str, fraction: float) -> None:
        """A stage of loading began, or came so far."""
        self._event("loading", stage=stage, fraction=fraction)

    def ready(self, base_url: str, api_key: str) -> None:
        """The server answers. The parent chose the key."""
        self._event("ready", base_url=base_url, pid=os.getpid())

    def failed(self, error: Exception) -> None:
        """The server cannot go on."""
        self._event("error", type=type(error).__name__, message=str(error))

    def _event(self, event: str, **fields: object) -> None:
        self._write(json.dumps({"event": event, **fields}))
