"""A client that hangs up before its request was acknowledged frees the engine too."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psutil
import pytest

import art
from tests.engine_server import EngineServer
from tests.integration.test_hang_up import LONG, ask, cpu_seconds, wait_until_busy

DELAY_S = 1.5


@pytest.fixture
def slow_proxy(engine_server: EngineServer) -> Iterator[str]:
    """The address of a proxy that passes an acknowledgement of a sample on late."""

    class Proxy(BaseHTTPRequestHandler):
        def answer(self) -> None:
            data = self.rfile.read(int(self.headers.get("content-length", 0)))
            hop = {"host", "connection", "content-length", "accept-encoding"}
            headers = {k: v for k, v in self.headers.items() if k.lower() not in hop}
            url = engine_server.base_url + self.path
            request = Request(url, data or None, headers, method=self.command)
            try:
                with urlopen(request, timeout=60) as response:
                    status, body, kind = response.status, response.read(), response.headers
            except HTTPError as error:
                status, body, kind = error.code, error.read(), error.headers
            if self.path.endswith("/asample"):
                time.sleep(DELAY_S)
            self.send_response(status)
            self.send_header("content-type", kind.get("content-type", "application/json"))
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_DELETE = answer

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


async def test_hanging_up_before_the_acknowledgement_ends_the_sampling(
    engine_server: EngineServer,
    slow_proxy: str,
    make_model: Callable[[str], art.TrainableModel[None]],
    tmp_path: Path,
) -> None:
    engine = psutil.Process(engine_server.process.pid)
    async with art.TinkerBackend(
        tinker_api_key=engine_server.api_key, base_url=slow_proxy, path=tmp_path
    ) as backend:
        model = make_model("agent")
        await model.register(backend)
        await ask(model, max_tokens=1)  # opens the sampler
        request = asyncio.create_task(ask(model, **LONG))
        await asyncio.sleep(DELAY_S / 3)  # sent, and not acknowledged
        request.cancel()
        await wait_until_busy(engine)
        hung_up = time.monotonic()
        while await cpu_seconds(engine, over=0.5) > 0.02:
            assert time.monotonic() - hung_up < 15, "the engine goes on for a client that is gone"
