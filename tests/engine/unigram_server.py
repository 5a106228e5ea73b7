"""The engine over HTTP on a real socket, with an executor whose passes can be counted."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from tinker.proto import tinker_public_pb2 as pb

from art._internal.http_server import BoundedHttp
from art.engine.app import create_app
from art.engine.core import Engine
from art.engine.sessions import Sessions
from art.engine.wire.results import encode

from .unigram import UnigramExecutor

KEY = "tml-test"


@dataclass
class Server:
    url: str
    engine: Engine
    executor: UnigramExecutor
    loop: asyncio.AbstractEventLoop

    def client(self, **headers: str) -> httpx.Client:
        return httpx.Client(
            base_url=f"{self.url}/api/v1/", headers={"X-API-Key": KEY, **headers}, timeout=20
        )


@contextlib.contextmanager
def serve(unigram: UnigramExecutor, tmp_path: Path) -> Iterator[Server]:
    engine = Engine(unigram, unigram, tmp_path, encode=encode, sessions=Sessions(timeout_s=60))
    listener = socket.create_server(("127.0.0.1", 0))
    app = create_app(engine, api_key=KEY, max_body_bytes=1 << 20)
    uvicorn_server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, ws="none", http=BoundedHttp)
    )
    loop = asyncio.new_event_loop()
    thread = threading.Thread(
        target=loop.run_until_complete, args=(uvicorn_server.serve(sockets=[listener]),)
    )
    thread.start()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TINKER_TELEMETRY", "0")
        yield Server(f"http://127.0.0.1:{listener.getsockname()[1]}", engine, unigram, loop)
    unigram.gate.set()
    unigram.ending.set()
    uvicorn_server.should_exit = True
    thread.join(timeout=10)
    loop.close()


def new_model(http: httpx.Client, **lora: int) -> str:
    session = http.post("create_session", json={"sdk_version": "0.38.0"}).json()["session_id"]
    body = {
        "session_id": session,
        "model_seq_id": 0,
        "base_model": "unigram",
        "lora_config": {"rank": 4, **lora},
    }
    first = http.post("create_model", json=body).json()
    assert http.post("create_model", json=body).json() == first
    model_id: str = result(http, first)["model_id"]
    return model_id


def result(http: httpx.Client, answer: dict[str, Any]) -> dict[str, Any]:
    request = {"request_id": answer["request_id"]}
    found: dict[str, Any] = http.post("retrieve_future", json=request).json()
    return found


def forward_backward(
    http: httpx.Client, model_id: str, seq_id: int, token: int = 1
) -> httpx.Response:
    message = pb.ForwardBackwardRequest(model_id=model_id, seq_id=seq_id, loss_fn="cross_entropy")
    datum = message.data.add()
    datum.model_input.add().encoded_text.tokens = np.array([token], np.int32).tobytes()
    tensor = datum.loss_fn_inputs["target_tokens"]
    tensor.dense, tensor.dtype = np.array([token]).tobytes(), pb.DTYPE_INT64
    return http.post(
        "forward_backward",
        content=message.SerializeToString(),
        headers={"content-type": "application/x-protobuf"},
    )


def called(server: Server, name: str) -> list[Any]:
    return [argument for call, argument in server.executor.calls if call == name]


def wait_for_call(server: Server, call: tuple[str, object]) -> None:
    deadline = time.monotonic() + 10
    while call not in server.executor.calls:
        assert time.monotonic() < deadline, f"{call} never came"
        time.sleep(0.005)


def new_sampling_session(http: httpx.Client, session_id: str) -> str:
    body = {"session_id": session_id, "sampling_session_seq_id": 0, "base_model": "unigram"}
    made: str = http.post("create_sampling_session", json=body).json()["sampling_session_id"]
    return made


def sample(http: httpx.Client, sampling_session_id: str, *, max_tokens: int = 1) -> dict[str, Any]:
    body = {
        "sampling_session_id": sampling_session_id,
        "seq_id": 0,
        "num_samples": 2,
        "prompt": {"chunks": [{"type": "encoded_text", "tokens": [1]}]},
        "sampling_params": {"max_tokens": max_tokens},
    }
    answer: dict[str, Any] = http.post("asample", json=body).json()
    return answer
