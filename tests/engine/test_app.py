"""The HTTP side, on a real socket, with an executor whose passes can be counted."""

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
import tinker
import uvicorn
import zstandard
from tinker import types
from tinker.proto import tinker_public_pb2 as pb

from art._internal.http_server import BoundedHttp
from art.engine.app import create_app
from art.engine.core import Engine
from art.engine.sessions import Sessions
from art.engine.wire.results import encode

from .unigram import LONG, UnigramExecutor

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


@pytest.fixture
def server(unigram: UnigramExecutor, tmp_path: Path) -> Iterator[Server]:
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


def test_retries_are_answered_from_the_first(server: Server) -> None:
    with server.client() as http:
        model_id = new_model(http)
        passes = [forward_backward(http, model_id, 1, token=3).json() for _ in range(3)]
        step = {"model_id": model_id, "seq_id": 2, "adam_params": {"learning_rate": 0.5}}
        steps = [http.post("optim_step", json=step).json() for _ in range(3)]
        results = [result(http, answer) for answer in steps]
        late = result(http, http.post("optim_step", json=step).json())
        body = {"request_id": passes[0]["request_id"]}
        outputs = [http.post("retrieve_future", json=body).content for _ in range(2)]
    assert len({answer["request_id"] for answer in passes}) == 1
    assert results == [results[0]] * 3 == [late] * 3
    assert outputs[0] == outputs[1] != b""
    assert len(called(server, "create_model")) == 1
    assert called(server, "forward_backward") == [[3]]
    assert called(server, "optim_step") == [0.5]


def test_order_is_by_seq_id_not_by_arrival(server: Server) -> None:
    with server.client() as http:
        model_id = new_model(http)
        answers = {seq: forward_backward(http, model_id, seq, token=seq) for seq in (3, 2, 4, 1)}
        for seq_id in (1, 2, 3, 4):
            body = {"request_id": answers[seq_id].json()["request_id"]}
            assert http.post("retrieve_future", json=body).status_code == 200
    assert called(server, "forward_backward") == [[1], [2], [3], [4]]


def test_sixty_four_samples_of_the_sdk_take_a_few_passes(server: Server) -> None:
    client = tinker.ServiceClient(base_url=server.url, api_key=KEY)
    assert client.holder.get_session_id()
    sampler = client.create_sampling_client(base_model="unigram").result()
    server.executor.gate.clear()
    futures = [
        sampler.sample(types.ModelInput.from_ints([1]), 1, types.SamplingParams(max_tokens=2))
        for _ in range(64)
    ]
    wait_for_call(server, ("submit", f"{sampler._sampling_session_id}:0"))
    deadline = time.monotonic() + 10
    while len(server.engine._sampling._waiting) + len(server.engine._sampling._running) < 64:
        assert time.monotonic() < deadline, "not all requests arrived"
        time.sleep(0.005)
    server.executor.gate.set()
    for future in futures:
        future.result()
    sizes = server.executor.sizes_of_steps
    assert sum(sizes) == 64
    assert len(sizes) <= 2


def test_heartbeats_are_answered_while_the_executor_computes(server: Server) -> None:
    with server.client() as http:
        model_id = new_model(http)
        server.executor.gate.clear()
        answer = forward_backward(http, model_id, 1).json()
        session_id = model_id.partition(":")[0]
        for _ in range(20):
            beat = http.post("session_heartbeat", json={"session_id": session_id}, timeout=1)
            assert beat.status_code == 200
        server.executor.gate.set()
        body = {"request_id": answer["request_id"]}
        assert http.post("retrieve_future", json=body).status_code == 200


def test_a_long_poll_asks_to_come_again(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("art.engine.routes.futures._LONG_POLL_S", 0.05)
    with server.client() as http:
        model_id = new_model(http)
        answer = forward_backward(http, model_id, 2).json()
        polled = http.post("retrieve_future", json={"request_id": answer["request_id"]})
    assert polled.status_code == 408
    assert polled.json()["type"] == "try_again"
    assert polled.json()["queue_state"] == "active"


def test_a_silent_session_loses_its_models(server: Server) -> None:
    with server.client() as http:
        model_id = new_model(http)
        session_id = model_id.partition(":")[0]
        save = {"model_id": model_id, "seq_id": 1, "sampling_session_seq_id": 0}
        sampler = result(http, http.post("save_weights_for_sampler", json=save).json())
        sampling_id = sampler["sampling_session_id"]
        assert http.get(f"samplers/{sampling_id}").status_code == 200
        server.engine.sessions.get(session_id).last_heartbeat -= 61
        assert server.engine.sessions.silent() == [session_id]
        asyncio.run_coroutine_threadsafe(server.engine.end_session(session_id), server.loop).result(
            timeout=10
        )
        beat = http.post("session_heartbeat", json={"session_id": session_id})
        assert beat.status_code == 410
        assert http.get(f"samplers/{sampling_id}").status_code == 404
        assert http.post("get_info", json={"model_id": model_id}).status_code == 404
    assert called(server, "unload_model") == [model_id]
    scratch = server.engine.store._scratch.path
    assert [entry.name for entry in scratch.iterdir()] == ["in-use"]


BAD_REQUESTS: dict[str, tuple[str, str, dict[str, Any], int, str]] = {
    "no JSON": ("post", "create_session", {"content": b"{"}, 422, "not valid"),
    "an unknown field": (
        "post",
        "create_session",
        {"json": {"sdk_version": "0.38.0", "new": 1}},
        422,
        "body: this server knows no field new",
    ),
    "an unknown endpoint": ("post", "create_custom_loss", {"json": {}}, 404, "has no POST"),
    "an unknown future": ("post", "retrieve_future", {"json": {"request_id": "x"}}, 404, "never"),
    "an unknown model": ("post", "get_info", {"json": {"model_id": "x"}}, 404, "no model 'x'"),
    "an unknown session": (
        "post",
        "session_heartbeat",
        {"json": {"session_id": "x"}},
        410,
        "has ended",
    ),
    "an unknown run": ("get", "training_runs/x", {}, 404, "no training run"),
    "a path that climbs": (
        "delete",
        "training_runs/a:train:0/checkpoints/weights/..%2F..%2Fx",
        {},
        404,
        "has no DELETE",
    ),
    "no protobuf": (
        "post",
        "forward_backward",
        {"json": {}},
        400,
        "send application/x-protobuf",
    ),
    "malformed protobuf": (
        "post",
        "forward_backward",
        {"content": b"\xff\xff", "headers": {"content-type": "application/x-protobuf"}},
        400,
        "not a protobuf",
    ),
    "an unknown encoding": (
        "post",
        "forward_backward",
        {
            "content": b"",
            "headers": {"content-type": "application/x-protobuf", "content-encoding": "br"},
        },
        400,
        "'br'",
    ),
    "a zstd bomb": (
        "post",
        "forward_backward",
        {
            "content": zstandard.ZstdCompressor().compress(bytes(1 << 26)),
            "headers": {"content-type": "application/x-protobuf", "content-encoding": "zstd"},
        },
        413,
        "once decompressed",
    ),
    "a body too large": ("post", "telemetry", {"content": bytes(2 << 20)}, 413, "over 1048576"),
    "a JSON body too large": (
        "post",
        "create_session",
        {"json": {"sdk_version": "x" * (2 << 20)}},
        413,
        "over 1048576",
    ),
    "many unknown fields": (
        "post",
        "create_session",
        {"json": {"sdk_version": "0.38.0", **{f"field{i:05}": i for i in range(20_000)}}},
        422,
        "knows no field field00000, field00001, field00002",
    ),
    "many wrong elements": (
        "post",
        "create_session",
        {"json": {"sdk_version": "0.38.0", "tags": [1] * 300_000}},
        422,
        "tags.0: Input should be a valid string",
    ),
    "deep nesting": (
        "post",
        "create_session",
        {"content": b'{"user_metadata":' + b'{"a":' * 10_000},
        422,
        "recursion limit",
    ),
    "very many arrays": (
        "post",
        "create_session",
        {"content": b'{"sdk_version":"0.38.0","tags":[' + b"[]," * 300_000 + b"[]]}"},
        422,
        "brackets and braces, of 20000 at most",
    ),
    "half a surrogate pair, escaped": (
        "post",
        "create_session",
        {"content": b'{"sdk_version":"0.38.0","user_metadata":{"note":"\\ud800"}}'},
        422,
        "not valid",
    ),
    "half a surrogate pair, as bytes": (
        "post",
        "create_session",
        {"content": b'{"sdk_version":"0.38.0","display_name":"\xed\xa0\x80"}'},
        422,
        "not valid",
    ),
    "a timeout that is no number": (
        "post",
        "retrieve_futures",
        {"content": b'{"target": {"sampling_session_id": "x"}, "timeout": NaN}'},
        422,
        "timeout: Input should be a finite number",
    ),
    "infinity in metadata": (
        "post",
        "create_session",
        {"content": b'{"sdk_version": "0.38.0", "user_metadata": {"a": [{"b": Infinity}]}}'},
        422,
        "NaN and infinity are not JSON",
    ),
    "a trailing slash": ("post", "optim_step/", {"json": {}}, 404, "has no POST"),
    "a long name": (
        "post",
        "get_info",
        {"json": {"model_id": "x" * 300_000}},
        404,
        "characters)",
    ),
    "a long path": ("get", "x" * 5000, {}, 404, "has no GET"),
    "a model number of ten digits": (
        "post",
        "create_model",
        {"json": {"session_id": "s", "model_seq_id": 10**9, "base_model": "unigram"}},
        422,
        "model_seq_id: Input should be less than 1000000000",
    ),
    "a seed beyond 63 bits": (
        "post",
        "create_model",
        {
            "json": {
                "session_id": "s",
                "model_seq_id": 0,
                "base_model": "unigram",
                "lora_config": {"rank": 1, "seed": 2**64},
            }
        },
        422,
        "lora_config.seed",
    ),
}


@pytest.mark.parametrize("what", BAD_REQUESTS)
def test_a_bad_request_is_explained_as_the_clients_fault(server: Server, what: str) -> None:
    method, path, arguments, status, text = BAD_REQUESTS[what]
    with server.client() as http:
        answer = http.request(method, path, **arguments)
    assert answer.status_code == status
    assert answer.json()["category"] == "user"
    assert text in answer.json()["error"]
    assert len(answer.content) < 4096


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"X-API-Key": ""}, 401),
        ({"X-API-Key": "tml-tesT"}, 401),
        ({"X-Stainless-Package-Version": "0.18.0"}, 400),
        ({"X-Stainless-Package-Version": "0.40.1"}, 400),
        ({"X-Stainless-Package-Version": "0.38.7"}, 200),
    ],
)
def test_the_key_and_the_sdks_version_are_checked(
    server: Server, headers: dict[str, str], status: int
) -> None:
    with server.client(**headers) as http:
        answer = http.get("get_server_capabilities")
        assert http.get("healthz").status_code == 200
    assert answer.status_code == status
    if status == 400:
        assert "speaks with the tinker SDK >=0.38,<0.39" in answer.json()["error"]


def test_telemetry_is_taken_and_not_kept(server: Server) -> None:
    with server.client() as http:
        answer = http.post("telemetry", json={"session_id": "s", "events": [{"event": "x"}]})
    assert answer.status_code == 200
    assert answer.json() == {"status": "accepted"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example:80"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "[::1"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Host": "localhost:1234"}, 200),
        ({"Host": "[::1]:1234", "Origin": "http://[::1]:1234"}, 200),
    ],
)
def test_a_page_of_another_site_is_refused_whatever_it_knows(
    server: Server, headers: dict[str, str], status: int
) -> None:
    with server.client(**headers) as http:
        assert http.get("get_server_capabilities").status_code == status
        assert http.get("healthz").status_code == status


@pytest.mark.parametrize("sent", [b"", b"GET /api/v1/healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n"])
def test_a_connection_whose_request_does_not_come_is_closed(
    server: Server, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr("art._internal.http_server.HEAD_S", 0.3)
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(sent)
        assert connection.recv(100) == b""
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"GET /api/v1/healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        connection.sendall(sent)
        while connection.recv(100):
            pass  # the rest of the answer, then the end


def test_a_fault_of_the_server_is_no_5xx(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        server.engine.sessions, "all", lambda: [][0], raising=True
    )  # as a bug would
    with server.client() as http:
        answer = http.get("sessions")
    assert answer.status_code == 400
    assert answer.json() == {"error": "IndexError: list index out of range", "category": "server"}


def test_a_request_that_is_refused_keeps_its_place(server: Server) -> None:
    """What is wrong with a request is its result, so the next one does not wait for it."""
    with server.client() as http:
        model_id = new_model(http)
        bad = {"model_id": model_id, "seq_id": 1, "adam_params": {"learning_rate": -1}}
        failed = result(http, http.post("optim_step", json=bad).json())
        assert failed["category"] == "user"
        assert "learning_rate" in failed["error"]
        after = forward_backward(http, model_id, 2).json()
        body = {"request_id": after["request_id"]}
        assert http.post("retrieve_future", json=body).status_code == 200


def test_a_model_that_cannot_be_created_leaves_nothing_behind(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(model_id: str, lora: object) -> None:
        raise ValueError("no memory")

    monkeypatch.setattr(server.executor, "create_model", refuse)
    with server.client() as http:
        session = http.post("create_session", json={"sdk_version": "0.38.0"}).json()["session_id"]
        body = {"session_id": session, "model_seq_id": 0, "base_model": "unigram"}
        answer = http.post("create_model", json=body | {"lora_config": {"rank": 1}}).json()
        assert result(http, answer) == {"error": "ValueError: no memory", "category": "server"}
        assert http.get("training_runs").json()["training_runs"] == []
        assert http.post(f"sessions/{session}/finish", json={}).status_code == 204
    assert called(server, "unload_model") == []


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


def test_a_running_sample_that_is_cancelled_stops(server: Server) -> None:
    with server.client() as http:
        session_id = new_model(http).partition(":")[0]
        answer = sample(http, new_sampling_session(http, session_id), max_tokens=LONG)
        assert len(answer["sample_sequence_ids"]) == 2
        wait_for_call(server, ("begin", 1))
        body = {"request_id": answer["request_id"]}
        assert http.post("cancel_future", json=body).status_code == 204
        assert "cancelled" in result(http, answer)["error"]
    wait_for_call(server, ("cancel", answer["request_id"]))


def test_a_long_sample_does_not_hold_training(server: Server) -> None:
    with server.client() as http:
        model_id = new_model(http)
        session_id = model_id.partition(":")[0]
        answer = sample(http, new_sampling_session(http, session_id), max_tokens=LONG)
        wait_for_call(server, ("begin", 1))
        step = {"model_id": model_id, "seq_id": 1, "adam_params": {"learning_rate": 0.5}}
        assert "metrics" in result(http, http.post("optim_step", json=step).json())
        server.executor.ending.set()
        body = {"request_id": answer["request_id"]}
        assert http.post("retrieve_future", json=body).status_code == 200


def test_sampling_stops_when_its_session_ends(server: Server) -> None:
    with server.client() as http:
        session_id = new_model(http).partition(":")[0]
        answer = sample(http, new_sampling_session(http, session_id), max_tokens=LONG)
        wait_for_call(server, ("begin", 1))
        assert http.post(f"sessions/{session_id}/finish", json={}).status_code == 204
    wait_for_call(server, ("cancel", answer["request_id"]))


def hang_up(server: Server, answer: dict[str, Any]) -> None:
    """Begin to wait for a result, and drop the connection."""
    with server.client() as http, pytest.raises(httpx.ReadTimeout):
        http.post("retrieve_future", json={"request_id": answer["request_id"]}, timeout=0.2)


def test_sampling_stops_when_its_client_hangs_up(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("art.engine.core._ABANDONED_AFTER_S", 0.1)
    with server.client() as http:
        session_id = new_model(http).partition(":")[0]
        answer = sample(http, new_sampling_session(http, session_id), max_tokens=LONG)
        wait_for_call(server, ("begin", 1))
        hang_up(server, answer)
        wait_for_call(server, ("cancel", answer["request_id"]))
        assert "cancelled" in result(http, answer)["error"]


def test_a_client_that_comes_back_finds_its_sample(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("art.engine.core._ABANDONED_AFTER_S", 0.5)
    with server.client() as http:
        session_id = new_model(http).partition(":")[0]
        answer = sample(http, new_sampling_session(http, session_id), max_tokens=LONG)
        wait_for_call(server, ("begin", 1))
        hang_up(server, answer)
        threading.Timer(1.0, server.executor.ending.set).start()
        body = {"request_id": answer["request_id"]}
        assert http.post("retrieve_future", json=body).status_code == 200
    assert ("cancel", answer["request_id"]) not in server.executor.calls


def test_bodies_that_are_read_at_a_time_have_a_bound_together(server: Server) -> None:
    """Five clients each send most of the largest body and then nothing."""
    host, port = server.url.removeprefix("http://").split(":")
    head = (
        "POST /api/v1/telemetry HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"X-API-Key: {KEY}\r\nContent-Length: {1 << 20}\r\n\r\n"
    ).encode()
    with contextlib.ExitStack() as stack:
        answers = []
        for _ in range(5):
            connection = stack.enter_context(
                socket.create_connection((host, int(port)), timeout=0.5)
            )
            connection.sendall(head + bytes(900_000))
            with contextlib.suppress(TimeoutError):
                answers.append(connection.recv(12))
        assert answers == [b"HTTP/1.1 429"]
    with server.client() as http:
        assert http.post("telemetry", content=bytes(900_000)).status_code == 200


def test_a_client_that_goes_away_while_it_sends_is_no_fault_of_the_server(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            f"POST /api/v1/create_session HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Key: {KEY}\r\n"
            "Content-Length: 1000\r\n\r\n{".encode()
        )
    with caplog.at_level("INFO"):
        deadline = time.monotonic() + 10
        while "was cut short" not in caplog.text:
            assert time.monotonic() < deadline, caplog.text
            time.sleep(0.01)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
