"""The official SDK against a real engine on the tiny model, in a process of its own."""

import asyncio
import math
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tinker
import torch
from tinker import RestClient, SamplingClient, ServiceClient, TrainingClient, types

from ..engine_server import EngineServer, StartEngine
from .sdk import ADAM, PROMPT, connect, datum, rest_client, train


def set_flag(client: ServiceClient, monkeypatch: pytest.MonkeyPatch, **flags: bool | int) -> None:
    """Change what the server told the SDK at its start."""
    config = client.holder.get_client_config().model_copy(update=flags)
    monkeypatch.setattr(client.holder, "_client_config", config)


def test_the_server_describes_its_model(
    rest: RestClient, trainer: TrainingClient, engine_server: EngineServer
) -> None:
    [model] = rest.get_server_capabilities().result().supported_models
    assert (model.model_name, model.trainable) == (engine_server.base_model, True)
    info = trainer.get_info()
    assert (info.model_data.model_name, info.lora_rank) == (engine_server.base_model, 4)
    tokens = trainer.get_tokenizer().encode("hello")
    assert tokens


def test_training_lowers_the_loss(trainer: TrainingClient) -> None:
    losses = train(trainer, steps=8)
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.9 * losses[0]


def test_forward_changes_nothing(trainer: TrainingClient) -> None:
    data = [datum([1, 2, 3])]
    first = trainer.forward(data, "cross_entropy").result()
    with pytest.raises(tinker.RequestFailedError, match="no gradients"):
        trainer.optim_step(ADAM).result()
    second = trainer.forward(data, "cross_entropy").result()
    assert first.metrics["loss:sum"] == second.metrics["loss:sum"]
    logprobs = first.loss_fn_outputs[0]["logprobs"]
    assert logprobs.shape == [2]
    assert math.isclose(first.metrics["loss:sum"], -sum(logprobs.data), rel_tol=1e-5)


def test_chunks_of_one_call_arrive_in_any_order(
    client: ServiceClient, trainer: TrainingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK sends the first chunk last; the outputs and the sum are those of one chunk."""
    data = [datum([1, 2, index % 50]) for index in range(12)]
    whole = trainer.forward(data, "cross_entropy").result()
    set_flag(client, monkeypatch, fwdbwd_max_chunk_len=3)
    parts = trainer.forward(data, "cross_entropy").result()
    for one, other in zip(whole.loss_fn_outputs, parts.loss_fn_outputs, strict=True):
        np.testing.assert_allclose(one["logprobs"].data, other["logprobs"].data, atol=1e-5)
    assert math.isclose(whole.metrics["loss:sum"], parts.metrics["loss:sum"], rel_tol=1e-5)


def test_a_custom_loss_on_the_client(trainer: TrainingClient) -> None:
    def loss(
        data: list[types.Datum], logprobs: list[torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, float]]:
        return -torch.stack([each.sum() for each in logprobs]).sum(), {"mine": 1.0}

    data = [datum([1, 2, 3, 4])]
    plain = trainer.forward(data, "cross_entropy").result()
    custom = trainer.forward_backward_custom(data, loss).result()
    assert custom.metrics["mine"] == 1.0
    assert math.isclose(custom.metrics["loss:sum"], plain.metrics["loss:sum"], rel_tol=1e-5)
    trainer.optim_step(ADAM).result()
    after = trainer.forward(data, "cross_entropy").result()
    assert after.metrics["loss:sum"] < plain.metrics["loss:sum"]


def test_sampled_logprobs_are_the_trainers(trainer: TrainingClient) -> None:
    """On-policy: what the sampler says of its tokens, the trainer recomputes, to 1e-5."""
    train(trainer, steps=3)
    sampler = trainer.save_weights_and_get_sampling_client().result()
    samples = sampler.sample(
        PROMPT, num_samples=6, sampling_params=types.SamplingParams(max_tokens=10, seed=3, stop=[])
    ).result()
    differences = []
    for sequence in samples.sequences:
        tokens = PROMPT.to_ints() + list(sequence.tokens)
        trained = trainer.forward([datum(tokens)], "cross_entropy").result()
        recomputed_all = trained.loss_fn_outputs[0]["logprobs"].data
        recomputed = recomputed_all[PROMPT.length - 1 :]
        differences.append(np.abs(np.array(recomputed) - np.array(sequence.logprobs)))
        scored = sampler.compute_logprobs(types.ModelInput.from_ints(tokens)).result()
        np.testing.assert_allclose(np.array(scored[1:], float), np.array(recomputed_all), atol=1e-5)
    assert np.concatenate(differences).mean() < 1e-5


def test_a_sampler_keeps_its_weights(trainer: TrainingClient) -> None:
    train(trainer, steps=1)
    sampler = trainer.save_weights_and_get_sampling_client().result()
    before = sampler.compute_logprobs(PROMPT).result()
    train(trainer, steps=3)
    assert sampler.compute_logprobs(PROMPT).result() == before
    after = (
        trainer.save_weights_and_get_sampling_client().result().compute_logprobs(PROMPT).result()
    )
    assert after != before


def test_a_sampler_of_a_checkpoint_keeps_its_weights_whatever_becomes_of_the_name(
    client: ServiceClient, trainer: TrainingClient
) -> None:
    """Its name is written again, it is evicted from memory by others, the name is deleted."""
    train(trainer, steps=1)
    path = trainer.save_weights_for_sampler("best").result().path
    sampler = client.create_sampling_client(model_path=path).result()
    before = sampler.compute_logprobs(PROMPT).result()
    train(trainer, steps=3)
    assert trainer.save_weights_for_sampler("best").result().path == path
    newer = client.create_sampling_client(model_path=path).result()
    assert newer.compute_logprobs(PROMPT).result() != before
    for _ in range(9):  # more than are held in memory
        other = trainer.save_weights_and_get_sampling_client().result()
        other.compute_logprobs(PROMPT).result()
    assert sampler.compute_logprobs(PROMPT).result() == before


def test_stop_tokens_and_stop_strings_end_a_sequence(
    client: ServiceClient, trainer: TrainingClient, engine_server: EngineServer
) -> None:
    sampler = client.create_sampling_client(base_model=engine_server.base_model).result()

    def sample(stop: list[int] | list[str] | None) -> tuple[list[int], str]:
        params = types.SamplingParams(max_tokens=6, temperature=0, stop=stop)
        [sequence] = sampler.sample(PROMPT, 1, params).result().sequences
        return list(sequence.tokens), sequence.stop_reason

    tokens, reason = sample([])
    assert (len(tokens), reason) == (6, "length")
    first = tokens.index(tokens[2])
    assert sample([tokens[2]]) == (tokens[: first + 1], "stop")
    text = str(trainer.get_tokenizer().decode(tokens[:2]))
    assert sample([text])[1] == "stop"
    assert sample(["no such text"]) == sample(None)


def test_a_sequence_ends_with_the_models_own_end_of_turn(tiny_model: Path) -> None:
    """What ends a sequence where a request names no stop tokens; the codec's test has the rest."""
    from transformers import AutoTokenizer

    from art.executors.torch.executor import TorchExecutor

    end = AutoTokenizer.from_pretrained(tiny_model).convert_tokens_to_ids("<|im_end|>")
    assert TorchExecutor(tiny_model, device="cpu").base_model.eos_token_ids == (end,)


def test_prompt_logprobs_and_topk(client: ServiceClient, engine_server: EngineServer) -> None:
    sampler = client.create_sampling_client(base_model=engine_server.base_model).result()
    result = sampler.sample(
        PROMPT,
        num_samples=2,
        sampling_params=types.SamplingParams(max_tokens=2),
        include_prompt_logprobs=True,
        topk_prompt_logprobs=3,
        prompt_logprobs_last_n=2,
    ).result()
    assert result.prompt_logprobs is not None
    assert result.topk_prompt_logprobs is not None
    assert [logprob is None for logprob in result.prompt_logprobs] == [True, True, False, False]
    assert [len(row or []) for row in result.topk_prompt_logprobs] == [0, 0, 3, 3]
    assert len({sequence.sequence_id for sequence in result.sequences}) == 2


def test_checkpoints_over_the_rest_client(
    client: ServiceClient, rest: RestClient, trainer: TrainingClient
) -> None:
    train(trainer)
    state = trainer.save_state("one", user_metadata={"step": "1"}).result().path
    weights = trainer.save_weights_for_sampler("one").result().path
    assert state == f"tinker://{trainer.model_id}/weights/one"
    assert weights == f"tinker://{trainer.model_id}/sampler_weights/one"

    run = rest.get_training_run(trainer.model_id).result()
    assert run.last_checkpoint is not None
    assert (run.lora_rank, run.last_checkpoint.tinker_path) == (4, state)
    assert trainer.model_id in [
        run.training_run_id for run in rest.list_training_runs().result().training_runs
    ]
    listed = rest.list_checkpoints(trainer.model_id).result().checkpoints
    assert {checkpoint.tinker_path for checkpoint in listed} == {state, weights}
    assert state in [each.tinker_path for each in rest.list_user_checkpoints().result().checkpoints]
    info = rest.get_weights_info_by_tinker_path(state).result()
    assert (info.lora_rank, info.train_unembed) == (4, False)

    rest.set_checkpoint_ttl_from_tinker_path(state, 7200).result()
    [kept] = [
        checkpoint
        for checkpoint in rest.list_checkpoints(trainer.model_id).result().checkpoints
        if checkpoint.tinker_path == state
    ]
    assert kept.expires_at is not None
    assert kept.user_metadata == {"step": "1"}

    sampler = client.create_sampling_client(model_path=weights).result()
    assert rest.get_sampler(sampler._sampling_session_id).result().model_path == weights
    rest.delete_checkpoint_from_tinker_path(weights).result()
    with pytest.raises(tinker.NotFoundError, match="there is no checkpoint"):
        client.create_sampling_client(model_path=weights).result()
    with pytest.raises(tinker.BadRequestError, match="cannot publish"):
        rest.publish_checkpoint_from_tinker_path(state).result()
    with pytest.raises(tinker.BadRequestError, match="cannot publish"):
        rest.unpublish_checkpoint_from_tinker_path(state).result()
    assert client.holder.get_session_id() in rest.list_sessions().result().sessions
    session = rest.get_session(client.holder.get_session_id()).result()
    assert trainer.model_id in session.training_run_ids


def test_training_goes_on_exactly_from_a_checkpoint(
    client: ServiceClient, trainer: TrainingClient
) -> None:
    train(trainer, steps=2)
    path = trainer.save_state("two").result().path
    expected = train(trainer, steps=3)

    resumed = client.create_training_client_from_state_with_optimizer(path).result()
    assert resumed.get_info().lora_rank == 4
    assert train(resumed, steps=3) == pytest.approx(expected, rel=1e-6)
    with pytest.warns(FutureWarning, match="deprecated"):  # the wire still has it
        resumed.load_state_with_optimizer(path).result()
    assert train(resumed, steps=3) == pytest.approx(expected, rel=1e-6)

    fresh = client.create_training_client_from_state(path).result()
    got = train(fresh, steps=3)
    assert got[0] == pytest.approx(expected[0], rel=1e-6)
    assert got[2] != pytest.approx(expected[2], rel=1e-6), "the optimizer begins anew"
    with pytest.warns(FutureWarning, match="deprecated"):
        resumed.load_state(path).result()
    assert train(resumed, steps=3) == pytest.approx(got, rel=1e-6)


def refusal(call: Callable[[], object]) -> str:
    start = time.monotonic()
    with pytest.raises(tinker.TinkerError) as caught:
        call()
    # The SDK repeats what it takes for a fault of the server for five minutes.
    assert time.monotonic() - start < 10
    return str(caught.value)


ONE = types.SamplingParams(max_tokens=1)
DATA = [datum([1, 2, 3])]
REFUSALS: dict[str, Callable[[ServiceClient, TrainingClient, SamplingClient], object]] = {
    "not 'other'": lambda c, t, s: c.create_lora_training_client("other").result(),
    "cannot name a checkpoint": lambda c, t, s: t.save_state("../up").result(),
    "ttl_seconds is 5": lambda c, t, s: t.save_state("x", ttl_seconds=5).result(),
    "there is no checkpoint": lambda c, t, s: c.create_training_client_from_state(
        f"tinker://{t.model_id}/weights/none"
    ).result(),
    "100000 tokens": lambda c, t, s: s.sample(
        types.ModelInput.from_ints([1] * 100_000), 1, ONE
    ).result(),
    "99999 tokens": lambda c, t, s: t.forward([datum([1] * 100_000)], "cross_entropy").result(),
    "names no token": lambda c, t, s: s.sample(
        PROMPT, 1, ONE, target_prompt_logprobs=types.TensorData.from_numpy(np.full((3, 2), -1))
    ).result(),
    "stable_reinforce": lambda c, t, s: t.forward_backward(DATA, "stable_reinforce").result(),
    "dimuon": lambda c, t, s: t.optim_step(types.DimuonParams(learning_rate=1.0)).result(),
    "clip_low": lambda c, t, s: t.forward_backward(DATA, "ppo", {"clip_low": 0.1}).result(),
    "is a text": lambda c, t, s: t.forward_backward(DATA, "ppo", {"kl": "low"}).result(),
}


@pytest.mark.parametrize("text", REFUSALS)
def test_bad_input_is_explained_at_once_and_harms_nothing(
    client: ServiceClient,
    trainer: TrainingClient,
    engine_server: EngineServer,
    text: str,
) -> None:
    sampler = client.create_sampling_client(base_model=engine_server.base_model).result()
    assert text in refusal(lambda: REFUSALS[text](client, trainer, sampler))
    assert len(train(trainer, steps=2)) == 2, "the model, or its order, was harmed"


def test_a_wrong_key_is_refused(engine_server: EngineServer) -> None:
    message = refusal(
        lambda: (
            RestClient(base_url=engine_server.base_url, api_key="tml-wrong")
            .get_server_capabilities()
            .result()
        )
    )
    assert "API key is missing or wrong" in message


def set_version(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """Let the SDK state another version, in its bodies and in its headers."""
    monkeypatch.setattr("tinker.lib.internal_client_holder.tinker_sdk_version", version)
    monkeypatch.setattr("tinker._client.__version__", version)


def test_a_version_of_the_sdk_that_is_too_old_is_refused(
    engine_server: EngineServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_version(monkeypatch, "0.18.1")
    message = refusal(lambda: connect(engine_server))
    assert ">=0.22" in message
    assert "0.18.1" in message


def test_a_newer_version_of_the_sdk_is_let_in_and_logged(
    engine_server: EngineServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_version(monkeypatch, "0.39.0")
    newer = connect(engine_server).create_lora_training_client(engine_server.base_model, rank=2)
    assert len(train(newer.result(), steps=2)) == 2
    assert engine_server.process.stderr.count("a client uses the tinker SDK 0.39.0") == 1


def sample_many(client: ServiceClient, engine_server: EngineServer) -> list[list[int]]:
    sampler = client.create_sampling_client(base_model=engine_server.base_model).result()

    async def sample() -> list[types.SampleResponse]:
        requests = [
            sampler.sample(PROMPT, 1, types.SamplingParams(max_tokens=4, seed=seed))
            for seed in range(64)
        ]
        return await asyncio.gather(*requests)

    results = asyncio.run(sample())
    assert all(len(result.sequences) == 1 for result in results)
    return [list(result.sequences[0].tokens) for result in results]


def test_many_samples_at_once_and_both_ways_to_wait(
    client: ServiceClient, engine_server: EngineServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``retrieve_futures``, the SDK's other way, is one poll for all results."""
    expected = sample_many(client, engine_server)
    set_flag(client, monkeypatch, sample_use_retrieve_futures=True)
    assert sample_many(client, engine_server) == expected


def test_compressed_requests(
    client: ServiceClient, trainer: TrainingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = [datum([1, 2, 3])]
    plain = trainer.forward(data, "cross_entropy").result()
    set_flag(client, monkeypatch, proto_compress_fwdbwd=True)
    for pool in client.holder._client_pools.values():
        for each in pool._clients:
            monkeypatch.setattr(each, "_client_config", client.holder.get_client_config())
    assert trainer.forward(data, "cross_entropy").result().metrics == plain.metrics


def test_a_finished_session_is_over(engine_server: EngineServer) -> None:
    client = connect(engine_server)
    trainer = client.create_lora_training_client(engine_server.base_model, rank=2).result()
    train(trainer)
    session_id = client.holder.get_session_id()
    client.close("success").result()
    rest = rest_client(engine_server)
    with pytest.raises(tinker.APIStatusError, match="has ended") as caught:
        rest.get_session(session_id).result()
    assert caught.value.status_code == 410


def test_a_restarted_engine_goes_on_from_disk(start_engine: StartEngine, tmp_path: Path) -> None:
    engine = start_engine(tmp_path)
    client = connect(engine)
    trainer = client.create_lora_training_client(engine.base_model, rank=4, seed=1).result()
    train(trainer, steps=2)
    path = trainer.save_state("two").result().path
    expected = train(trainer, steps=3)
    engine.process.kill()

    again = start_engine(tmp_path)
    client, rest = connect(again), rest_client(again)
    assert [each.tinker_path for each in rest.list_user_checkpoints().result().checkpoints] == [
        path
    ]
    resumed = client.create_training_client_from_state_with_optimizer(path).result()
    assert resumed.model_id != trainer.model_id
    assert train(resumed, steps=3) == pytest.approx(expected, rel=1e-6)
    again.process.send_signal(signal.SIGTERM)
    again.process.wait(-signal.SIGTERM, timeout=20)
    assert not list(tmp_path.glob("scratch-*"))
