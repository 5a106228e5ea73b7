"""The HTTP protocol of both servers, over a real socket."""

import socket
import threading
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from art._internal.http_server import BoundedHttp


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a server that answers with the size of the body, or refuses it unread."""

    async def size(request: Request) -> PlainTextResponse:
        try:
            return PlainTextResponse(str(len(await request.body())))
        except ClientDisconnect:  # as both servers do
            return PlainTextResponse("nobody reads this")

    async def refuse(request: Request) -> PlainTextResponse:
        return PlainTextResponse("no", 401)

    app = Starlette(
        routes=[
            Route("/size", size, methods=["POST"]),
            Route("/refuse", refuse, methods=["POST"]),
        ]
    )
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none", http=BoundedHttp))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join(timeout=10)


@pytest.mark.parametrize("path", ["/size", "/refuse"])
@pytest.mark.parametrize("chunk", [b"zz\r\n", b"3\r\nabcdefgh\r\n"])
def test_a_body_that_is_not_http_is_answered_once_and_is_no_fault(
    port: int, path: str, chunk: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    with (
        caplog.at_level("ERROR"),
        socket.create_connection(("127.0.0.1", port), timeout=10) as connection,
    ):
        connection.sendall(head.encode() + chunk)
        answer = b""
        while part := connection.recv(4096):
            answer += part
    assert answer.startswith(b"HTTP/1.1 400")
    assert answer.count(b"HTTP/1.1") == 1
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"POST /size HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\n\r\nab")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    assert caplog.records == []
