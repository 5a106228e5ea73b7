"""Sampling clients of the SDK: inflight ones, and copies in other processes."""

import asyncio
import pickle

import numpy as np
import pytest
import tinker
from tinker import SamplingClient, ServiceClient, TrainingClient, types

from ..engine_server import EngineServer
from .sdk import PROMPT, connect, train
from .unigram import LONG
from .unigram_server import (
    Server,
    called,
    new_model,
    result,
    sample,
    wait_for_call,
)


def logprobs(sampler: SamplingClient) -> list[float | None]:
    return sampler.compute_logprobs(PROMPT).result()


def save(trainer: TrainingClient, kind: types.SamplingClientKind) -> SamplingClient:
    return trainer.save_weights_and_get_sampling_client(kind=kind).result()


def test_inflight_samplers_of_a_model_share_the_weights_of_its_last_inflight_save(
    trainer: TrainingClient,
) -> None:
    train(trainer)
    first, fixed = save(trainer, "inflight"), save(trainer, "snapshot")
    before = logprobs(first)
    assert logprobs(fixed) == before

    train(trainer, steps=3)
    assert logprobs(first) == before, "training alone publishes nothing"
    second, newer = save(trainer, "inflight"), save(trainer, "snapshot")
    assert logprobs(second) == logprobs(first) == logprobs(newer) != before
    assert logprobs(fixed) == before, "a snapshot keeps its weights"


def test_inflight_samplers_of_another_model_keep_their_weights(
    client: ServiceClient, engine_server: EngineServer, trainer: TrainingClient
) -> None:
    other = client.create_lora_training_client(engine_server.base_model, rank=2).result()
    train(other)
    sampler = save(other, "inflight")
    before = logprobs(sampler)
    train(trainer, steps=2)
    save(trainer, "inflight")
    assert logprobs(sampler) == before


@pytest.mark.parametrize("fields", [{"path": "named"}, {"ttl_seconds": 7200}])
def test_an_inflight_sampler_has_neither_a_name_nor_a_time_to_live(
    server: Server, fields: dict[str, object]
) -> None:
    number = {} if "path" in fields else {"sampling_session_seq_id": 0}
    with server.client() as http:
        body = {"model_id": new_model(http), "seq_id": 1, "kind": "inflight", **number, **fields}
        failed = result(http, http.post("save_weights_for_sampler", json=body).json())
    assert "an inflight sampler has no name and no ttl_seconds" in failed["error"]


def publish(server: Server, model_id: str, seq_id: int) -> str:
    body = {
        "model_id": model_id,
        "seq_id": seq_id,
        "kind": "inflight",
        "sampling_session_seq_id": seq_id,
    }
    with server.client() as http:
        saved = result(http, http.post("save_weights_for_sampler", json=body).json())
    sampling_session_id: str = saved["sampling_session_id"]
    return sampling_session_id


def test_replaced_weights_are_freed_once_no_request_uses_them(server: Server) -> None:
    def free() -> None:
        pending = server.engine.samplers.free_retired()
        asyncio.run_coroutine_threadsafe(pending, server.loop).result(timeout=10)

    def adapters() -> set[str]:
        scratch = server.engine.store._scratch.path
        return {entry.name for entry in scratch.iterdir()} - {"in-use"}

    with server.client() as http:
        model_id = new_model(http)
        sampler = publish(server, model_id, 1)
        [first] = adapters()
        running = sample(http, sampler, max_tokens=LONG)
        wait_for_call(server, ("begin", 1))
        publish(server, model_id, 2)
        free()
        assert first in adapters(), "a request uses it"

        server.executor.ending.set()
        body = {"request_id": running["request_id"]}
        answer = http.post("retrieve_future", json=body)
        assert answer.headers["content-type"] == "application/x-protobuf"
        free()
        assert first not in adapters()
        assert len(adapters()) == 1
        assert called(server, "unload_adapter") == [first]

        session_id = model_id.partition(":")[0]
        assert http.post(f"sessions/{session_id}/finish", json={}).status_code == 204
        assert adapters() == set()


def test_copies_of_a_sampling_client_number_their_requests_apart(
    client: ServiceClient, engine_server: EngineServer
) -> None:
    sampler = client.create_sampling_client(base_model=engine_server.base_model).result()
    copies = [pickle.loads(pickle.dumps(sampler)) for _ in range(2)]
    handle = sampler.get_sampler_handle()
    copies.append(SamplingClient.from_sampler_handle(handle, api_key=engine_server.api_key))
    params = types.SamplingParams(max_tokens=4, temperature=0, stop=[])
    found = [each.sample(PROMPT, 1, params).result() for each in (sampler, *copies)]
    tokens = [list(each.sequences[0].tokens) for each in found]
    assert tokens == [tokens[0]] * 4
    assert [each._cloned_sampler_id for each in copies] == [1, 2, 3]
    assert len({each.sequences[0].sequence_id for each in found}) == 4


def test_only_a_live_sampling_session_can_be_joined(engine_server: EngineServer) -> None:
    client = connect(engine_server)
    sampler = client.create_sampling_client(base_model=engine_server.base_model).result()
    copy = pickle.loads(pickle.dumps(sampler))
    client.close("success").result()
    with pytest.raises(tinker.NotFoundError, match="no sampling session"):
        copy.compute_logprobs(PROMPT).result()


def test_a_checkpoint_can_be_sampled_from_by_its_trainer(trainer: TrainingClient) -> None:
    train(trainer)
    path = trainer.save_weights_for_sampler("here").result().path
    named = trainer.create_sampling_client(path).result()
    np.testing.assert_allclose(
        np.array(logprobs(named)[1:], float),
        np.array(logprobs(save(trainer, "snapshot"))[1:], float),
    )
