"""Requests that are malformed, too large, cut short or from a stranger, on a real socket."""

import contextlib
import socket
import time
from typing import Any

import pytest
import zstandard

from .unigram_server import KEY, Server

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
        {"json": {"sdk_version": "0.38.0", **{f"field{i:05}": 1 for i in range(20_000)}}},
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
        ({"X-Stainless-Package-Version": "new"}, 400),
        ({"X-Stainless-Package-Version": "0.40.1"}, 200),
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
        assert "speaks with the tinker SDK from 0.22 on" in answer.json()["error"]


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
