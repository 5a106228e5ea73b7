"""A faulty TCP proxy: it drops, delays, repeats and cuts what goes between client and server."""

import asyncio
import threading
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from types import TracebackType
from urllib.parse import urlsplit

_MAX_DELAY_S = 0.2
_HEAD_END = b"\r\n\r\n"
_FAULTS = ("refuse", "lose the request", "lose the answer", "cut the answer", "repeat", "delay")


@dataclass(slots=True)
class _Message:
    """A whole HTTP message."""

    head: bytes
    body: bytes

    @property
    def data(self) -> bytes:
        return self.head + self.body


@dataclass(slots=True)
class FaultyProxy:
    """Forwards HTTP/1.1 to a server, with faults; runs in a thread until the ``with`` block ends.

    Args:
        base_url: The server's address.
        seed: Chooses the faults.
        rate: The share of requests that meet one.

    Attributes:
        faults: How often each fault happened.
        requests: The number of requests.
    """

    base_url: str
    seed: int
    rate: float = 0.2
    faults: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    _port: int = 0
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _thread: threading.Thread | None = None
    _rng: Random = field(default_factory=Random)
    _repeating: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        """The address of the proxy."""
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> "FaultyProxy":
        self._rng = Random(f"{self.seed}:proxy")
        listening = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(listening,), daemon=True)
        self._thread.start()
        assert listening.wait(10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._thread is not None
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, listening: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self._port = server.sockets[0].getsockname()[1]
        listening.set()
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        parts = urlsplit(self.base_url)
        return await asyncio.open_connection(parts.hostname, parts.port)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_writer: asyncio.StreamWriter | None = None
        try:
            server_reader, server_writer = await self._connect()
            while True:
                request = await _read(reader)
                if not await self._forward(request, server_reader, server_writer, writer):
                    return
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return
        finally:
            writer.close()
            if server_writer is not None:
                server_writer.close()

    async def _forward(
        self,
        request: _Message,
        server_reader: asyncio.StreamReader,
        server_writer: asyncio.StreamWriter,
        writer: asyncio.StreamWriter,
    ) -> bool:
        """Pass one request on, and its answer back; whether the connection goes on."""
        self.requests += 1
        fault = self._rng.choice(_FAULTS) if self._rng.random() < self.rate else "none"
        self.faults[fault] += 1
        if fault == "refuse":
            return False
        if fault == "delay":
            await asyncio.sleep(self._rng.uniform(0, _MAX_DELAY_S))
        if fault == "repeat":
            task = asyncio.create_task(self._repeat(request.data))
            self._repeating.add(task)
            task.add_done_callback(self._repeating.discard)
        if fault == "lose the request":
            server_writer.write(request.data[: self._rng.randrange(len(request.data))])
            await server_writer.drain()
            return False
        server_writer.write(request.data)
        await server_writer.drain()
        if fault == "lose the answer":
            await asyncio.sleep(self._rng.choice((0, 0.05)))
            return False
        answer = (await _read(server_reader)).data
        if fault == "cut the answer":
            answer = answer[: self._rng.randrange(len(answer))]
        writer.write(answer)
        await writer.drain()
        return fault != "cut the answer"

    async def _repeat(self, data: bytes) -> None:
        """Send the same request on a connection of its own, and drop the answer."""
        try:
            reader, writer = await self._connect()
        except OSError:
            return
        try:
            writer.write(data)
            await writer.drain()
            async with asyncio.timeout(5):
                await _read(reader)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()


async def _read(reader: asyncio.StreamReader) -> _Message:
    head = await reader.readuntil(_HEAD_END)
    length, chunked, status = 0, False, head.split(b" ", 2)[1]
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            length = int(value)
        chunked |= name.strip().lower() == b"transfer-encoding"
    if status in (b"204", b"304"):
        return _Message(head, b"")
    if not chunked:
        return _Message(head, await reader.readexactly(length))
    body = b""
    while True:
        line = await reader.readuntil(b"\r\n")
        chunk = await reader.readexactly(int(line, 16) + 2)
        body += line + chunk
        if int(line, 16) == 0:
            return _Message(head, body)
