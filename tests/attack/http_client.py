"""An HTTP/1.1 client that sends what a well-behaved one would not."""

import contextlib
import http.client
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_CHUNK = 1000


@dataclass(frozen=True, slots=True)
class Request:
    """A request, right or wrong.

    Attributes:
        route: The name under which it is counted, such as ``"POST asample"``.
        method: Of the request line.
        path: Of the request line, with the query.
        headers: Beside the key, ``Host`` and what frames the body.
        body: The body; with ``raw`` the whole request, its head as well.
        chunked: Whether the body is sent in chunks, without a length before it.
        cut: The number of bytes at the end that are left out; the client then sends no more.
        raw: Whether ``body`` is sent as it is.
        patience: Seconds after which the client hangs up. ``None``: an answer must come.
    """

    route: str
    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    chunked: bool = False
    cut: int = 0
    raw: bool = False
    patience: float | None = None

    def encoded(self, headers: Mapping[str, str]) -> bytes:
        """The bytes of the request, with a client's own headers where it has none of that name."""
        if self.raw:
            return self.body
        framing = (
            {"Transfer-Encoding": "chunked"}
            if self.chunked
            else {"Content-Length": str(len(self.body))}
        )
        lines = [f"{self.method} {self.path} HTTP/1.1"]
        lines += [
            f"{name}: {text}" for name, text in {**headers, **framing, **self.headers}.items()
        ]
        data = "\r\n".join([*lines, "", ""]).encode("latin-1") + self._framed()
        return data[: len(data) - self.cut] if self.cut else data

    def _framed(self) -> bytes:
        if not self.chunked:
            return self.body
        starts = range(0, len(self.body), _CHUNK)
        parts = [self.body[start : start + _CHUNK] for start in starts]
        return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"

    def __str__(self) -> str:
        framing = "chunked" if self.chunked else f"cut by {self.cut}" if self.cut else "whole"
        body = f"{len(self.body)} bytes, {framing}: {self.body[:300]!r}"
        return f"{self.method} {self.path[:200]} {dict(self.headers)} {body}"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that came whole."""

    status: int
    content_type: str
    body: bytes

    def json(self) -> object:
        """The body as JSON; ``None`` where it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


class NoAnswerError(Exception):
    """The connection ended, or time ran out, before an answer was whole."""


class Client:
    """Keeps one connection, and makes a new one after each that was broken.

    Args:
        base_url: The server's address.
        headers: Sent with every request, such as the key.
        timeout: Seconds within which an answer must come.
    """

    def __init__(self, base_url: str, headers: Mapping[str, str], *, timeout: float = 40) -> None:
        parts = urlsplit(base_url)
        assert parts.hostname is not None
        self._address = (parts.hostname, parts.port or 80)
        self._headers = {"Host": parts.netloc, **headers}
        self._timeout = timeout
        self._connection: socket.socket | None = None

    def __call__(self, request: Request) -> Answer:
        """Send a request and read the answer.

        Raises:
            NoAnswerError: There was none. For a request with ``patience`` that is no fault.
        """
        data = request.encoded(self._headers)
        if self._connection is not None:
            # A server may close a connection between two requests. Then it is tried on a new one.
            with contextlib.suppress(ConnectionError, http.client.RemoteDisconnected):
                return self._exchange(self._connection, request, data)
            self.close()
        self._connection = socket.create_connection(self._address)
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            return self._exchange(self._connection, request, data)
        except (ConnectionError, http.client.HTTPException) as error:
            self.close()
            raise NoAnswerError(f"{type(error).__name__}: {error}") from error

    def json(self, method: str, path: str, body: object = None) -> tuple[int, object]:
        """Send what a well-behaved client would, and return the status and the JSON."""
        data = b"" if body is None else json.dumps(body).encode()
        answer = self(Request(f"{method} {path}", method, f"/api/v1/{path}", body=data))
        return answer.status, answer.json()

    def close(self) -> None:
        """End the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _exchange(self, connection: socket.socket, request: Request, data: bytes) -> Answer:
        connection.settimeout(request.patience or self._timeout)
        # Where it is refused before it is read to the end there is an answer all the same.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(data)
        if request.cut:
            connection.shutdown(socket.SHUT_WR)
        response = http.client.HTTPResponse(connection, method=request.method)
        try:
            response.begin()
            kind = response.getheader("content-type") or ""
            answer = Answer(response.status, kind, response.read())
        except TimeoutError as error:
            self.close()
            raise NoAnswerError("time ran out") from error
        finally:
            response.close()
        if request.cut or request.raw or response.will_close:
            self.close()
        return answer
