"""The HTTP side, on a real socket, with an executor whose passes can be counted."""

import asyncio
import threading
import time
from typing import Any

import httpx
import pytest
import tinker
from tinker import types

from .unigram import LONG
from .unigram_server import (
    KEY,
    Server,
    called,
    forward_backward,
    new_model,
    new_sampling_session,
    result,
    sample,
    wait_for_call,
)


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


def test_telemetry_is_taken_and_not_kept(server: Server) -> None:
    with server.client() as http:
        answer = http.post("telemetry", json={"session_id": "s", "events": [{"event": "x"}]})
    assert answer.status_code == 200
    assert answer.json() == {"status": "accepted"}


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
    monkeypatch.setattr("art.engine.samplers._ABANDONED_AFTER_S", 0.1)
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
    monkeypatch.setattr("art.engine.samplers._ABANDONED_AFTER_S", 0.5)
    with server.client() as http:
        session_id = new_model(http).partition(":")[0]
        answer = sample(http, new_sampling_session(http, session_id), max_tokens=LONG)
        wait_for_call(server, ("begin", 1))
        hang_up(server, answer)
        threading.Timer(1.0, server.executor.ending.set).start()
        body = {"request_id": answer["request_id"]}
        assert http.post("retrieve_future", json=body).status_code == 200
    assert ("cancel", answer["request_id"]) not in server.executor.calls
