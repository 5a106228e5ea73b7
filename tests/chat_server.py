"""A real HTTP server that answers chat completions by a script: another model, as tests need it."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Answer:
    """One answer.

    Attributes:
        content: The message's text, or its whole body where it is bytes.
        status: The status code.
        delay: Seconds before the answer begins.
        pause: Seconds between the bytes of the body.
        usage: The tokens that it reports.
    """

    content: str | bytes | None = ""
    status: int = 200
    delay: float = 0.0
    pause: float = 0.0
    usage: dict[str, Any] = field(
        default_factory=lambda: {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    )


Script = Callable[[dict[str, Any]], Answer]


@dataclass
class ChatServer:
    """A running server.

    Attributes:
        base_url: Its base URL, ending in ``/v1``.
        script: Makes the answer to a request's body; may be replaced.
        requests: The bodies of all requests.
        keys: The keys that they brought.
    """

    base_url: str
    script: Script
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    def say(self, *answers: Answer) -> None:
        """Give these answers one after the other, the last one for ever."""
        waiting = list(answers)
        self.script = lambda _: waiting.pop(0) if len(waiting) > 1 else waiting[0]


@contextmanager
def chat_server() -> Iterator[ChatServer]:
    """Run a server on loopback for the block."""
    server = ChatServer("", lambda _: Answer("hello"))
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                server.requests.append(body)
                server.keys.append(self.headers["Authorization"].removeprefix("Bearer "))
                answer = server.script(body)
            time.sleep(answer.delay)
            data = _body(answer, body["model"])
            try:
                self.send_response(answer.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                for byte in data if answer.pause else ():
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    time.sleep(answer.pause)
                if not answer.pause:
                    self.wfile.write(data)
            except OSError:  # the client is gone
                self.close_connection = True

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        http.block_on_close = False
        server.base_url = f"http://127.0.0.1:{http.server_port}/v1"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()


def _body(answer: Answer, model: str) -> bytes:
    if isinstance(answer.content, bytes):
        return answer.content
    if answer.status != 200:
        return json.dumps({"error": {"message": answer.content}}).encode()
    message = {"role": "assistant", "content": answer.content}
    return json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 0,
            "model": model,
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": answer.usage,
        }
    ).encode()
