"""The official SDK against a real engine on the tiny model, in a process of its own."""

import asyncio
import math
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import tinker
from tinker import types

ADAM = types.AdamParams(learning_rate=1e-2)
PROMPT = types.ModelInput.from_ints([5, 6, 7, 8])


@pytest.fixture(scope="session")
def client(engine_server):
    return connect(engine_server)


def connect(engine):
    client = tinker.ServiceClient(base_url=engine.base_url, api_key=engine.api_key)
    # The SDK makes its connection when it is first used, under a lock that its own event loop
    # takes too: two first uses at a time wait for each other for ever.
    assert client.holder.get_session_id()
    return client


@pytest.fixture
def trainer(client, engine_server):
    return client.create_lora_training_client(
        base_model=engine_server.base_model, rank=4, seed=1, train_unembed=False
    ).result()


def datum(tokens):
    targets = tokens[1:]
    return types.Datum(
        model_input=types.ModelInput.from_ints(tokens[:-1]),
        loss_fn_inputs={"target_tokens": targets, "weights": [1.0] * len(targets)},
    )


def set_flag(client, monkeypatch, **flags):
    """Change what the server told the SDK at its start."""
    config = client.holder.get_client_config().model_copy(update=flags)
    monkeypatch.setattr(client.holder, "_client_config", config)


def train(client, steps=1):
    """Losses of some steps on one sequence; passes and steps are sent together."""
    data = [datum([1, 2, 3, 4, 5])]
    futures = [
        (client.forward_backward(data, "cross_entropy"), client.optim_step(ADAM))
        for _ in range(steps)
    ]
    losses = []
    for computed, stepped in futures:
        losses.append(computed.result().metrics["loss:sum"])
        stepped.result()
    return losses


def test_what_the_server_says_of_itself(client, trainer, engine_server):
    [model] = client.get_server_capabilities().supported_models
    assert (model.model_name, model.trainable) == (engine_server.base_model, True)
    info = trainer.get_info()
    assert (info.model_data.model_name, info.lora_rank) == (engine_server.base_model, 4)
    tokens = trainer.get_tokenizer().encode("hello")
    assert tokens


def test_training_lowers_the_loss(trainer):
    losses = train(trainer, steps=8)
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.9 * losses[0]


def test_forward_changes_nothing(trainer):
    data = [datum([1, 2, 3])]
    first = trainer.forward(data, "cross_entropy").result()
    with pytest.raises(tinker.RequestFailedError, match="no gradients"):
        trainer.optim_step(ADAM).result()
    second = trainer.forward(data, "cross_entropy").result()
    assert first.metrics["loss:sum"] == second.metrics["loss:sum"]
    logprobs = first.loss_fn_outputs[0]["logprobs"]
    assert logprobs.shape == [2]
    assert math.isclose(first.metrics["loss:sum"], -sum(logprobs.data), rel_tol=1e-5)


def test_chunks_of_one_call_arrive_in_any_order(client, trainer, monkeypatch):
    """The SDK sends the first chunk last; the outputs and the sum are those of one chunk."""
    data = [datum([1, 2, index % 50]) for index in range(12)]
    whole = trainer.forward(data, "cross_entropy").result()
    set_flag(client, monkeypatch, fwdbwd_max_chunk_len=3)
    parts = trainer.forward(data, "cross_entropy").result()
    for one, other in zip(whole.loss_fn_outputs, parts.loss_fn_outputs, strict=True):
        np.testing.assert_allclose(one["logprobs"].data, other["logprobs"].data, atol=1e-5)
    assert math.isclose(whole.metrics["loss:sum"], parts.metrics["loss:sum"], rel_tol=1e-5)


def test_a_custom_loss_on_the_client(trainer):
    def loss(data, logprobs):
        return -sum(each.sum() for each in logprobs), {"mine": 1.0}

    data = [datum([1, 2, 3, 4])]
    plain = trainer.forward(data, "cross_entropy").result()
    custom = trainer.forward_backward_custom(data, loss).result()
    assert custom.metrics["mine"] == 1.0
    assert math.isclose(custom.metrics["loss:sum"], plain.metrics["loss:sum"], rel_tol=1e-5)
    trainer.optim_step(ADAM).result()
    after = trainer.forward(data, "cross_entropy").result()
    assert after.metrics["loss:sum"] < plain.metrics["loss:sum"]


def test_sampled_logprobs_are_the_trainers(trainer):
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
        recomputed = trained.loss_fn_outputs[0]["logprobs"].data[PROMPT.length - 1 :]
        differences.append(np.abs(np.array(recomputed) - np.array(sequence.logprobs)))
        scored = sampler.compute_logprobs(types.ModelInput.from_ints(tokens)).result()
        np.testing.assert_allclose(
            scored[1:], trained.loss_fn_outputs[0]["logprobs"].data, atol=1e-5
        )
    assert np.concatenate(differences).mean() < 1e-5


def test_a_sampler_keeps_its_weights(trainer):
    train(trainer, steps=1)
    sampler = trainer.save_weights_and_get_sampling_client().result()
    before = sampler.compute_logprobs(PROMPT).result()
    train(trainer, steps=3)
    assert sampler.compute_logprobs(PROMPT).result() == before
    after = (
        trainer.save_weights_and_get_sampling_client().result().compute_logprobs(PROMPT).result()
    )
    assert after != before


def test_what_ends_a_sequence(client, trainer, engine_server):
    sampler = client.create_sampling_client(base_model=engine_server.base_model).result()

    def sample(stop):
        params = types.SamplingParams(max_tokens=6, temperature=0, stop=stop)
        [sequence] = sampler.sample(PROMPT, 1, params).result().sequences
        return list(sequence.tokens), sequence.stop_reason

    tokens, reason = sample([])
    assert (len(tokens), reason) == (6, "length")
    first = tokens.index(tokens[2])
    assert sample([tokens[2]]) == (tokens[: first + 1], "stop")
    text = trainer.get_tokenizer().decode(tokens[:2])
    assert sample([text])[1] == "stop"
    assert sample(["no such text"]) == sample(None)


def test_the_models_own_end(tiny_model):
    """What ends a sequence where a request names no stop tokens; the codec's test has the rest."""
    from transformers import AutoTokenizer

    from art.executors.torch.executor import TorchExecutor

    end = AutoTokenizer.from_pretrained(tiny_model).convert_tokens_to_ids("<|im_end|>")
    assert TorchExecutor(tiny_model, device="cpu").base_model.eos_token_ids == (end,)


def test_prompt_logprobs_and_topk(client, engine_server):
    sampler = client.create_sampling_client(base_model=engine_server.base_model).result()
    result = sampler.sample(
        PROMPT,
        num_samples=2,
        sampling_params=types.SamplingParams(max_tokens=2),
        include_prompt_logprobs=True,
        topk_prompt_logprobs=3,
        prompt_logprobs_last_n=2,
    ).result()
    assert [logprob is None for logprob in result.prompt_logprobs] == [True, True, False, False]
    assert [len(row or []) for row in result.topk_prompt_logprobs] == [0, 0, 3, 3]
    assert len({sequence.sequence_id for sequence in result.sequences}) == 2


def test_checkpoints_over_the_rest_client(client, trainer):
    rest = client.create_rest_client()
    train(trainer)
    state = trainer.save_state("one", user_metadata={"step": "1"}).result().path
    weights = trainer.save_weights_for_sampler("one").result().path
    assert state == f"tinker://{trainer.model_id}/weights/one"
    assert weights == f"tinker://{trainer.model_id}/sampler_weights/one"

    run = rest.get_training_run(trainer.model_id).result()
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
    assert client.holder.get_session_id() in rest.list_sessions().result().sessions
    session = rest.get_session(client.holder.get_session_id()).result()
    assert trainer.model_id in session.training_run_ids


def test_training_goes_on_exactly_from_a_checkpoint(client, trainer):
    train(trainer, steps=2)
    path = trainer.save_state("two").result().path
    expected = train(trainer, steps=3)

    resumed = client.create_training_client_from_state_with_optimizer(path).result()
    assert resumed.get_info().lora_rank == 4
    assert train(resumed, steps=3) == pytest.approx(expected, rel=1e-6)
    resumed.load_state_with_optimizer(path).result()
    assert train(resumed, steps=3) == pytest.approx(expected, rel=1e-6)

    fresh = client.create_training_client_from_state(path).result()
    got = train(fresh, steps=3)
    assert got[0] == pytest.approx(expected[0], rel=1e-6)
    assert got[2] != pytest.approx(expected[2], rel=1e-6), "the optimizer begins anew"


def _elapsed(call):
    start = time.monotonic()
    with pytest.raises(tinker.TinkerError) as caught:
        call()
    # The SDK repeats what it takes for a fault of the server for five minutes.
    assert time.monotonic() - start < 10
    return str(caught.value)


def test_bad_input_is_explained_at_once(client, trainer, engine_server):
    sampler = client.create_sampling_client(base_model=engine_server.base_model).result()
    long = types.ModelInput.from_ints([1] * 100_000)
    one = types.SamplingParams(max_tokens=1)
    data = [datum([1, 2, 3])]
    explained = {
        "not 'other'": lambda: client.create_lora_training_client("other").result(),
        "cannot name a checkpoint": lambda: trainer.save_state("../up").result(),
        "ttl_seconds is 5": lambda: trainer.save_state("x", ttl_seconds=5).result(),
        "there is no checkpoint": lambda: trainer.load_state(
            f"tinker://{trainer.model_id}/weights/none"
        ).result(),
        "100000 tokens": lambda: sampler.sample(long, 1, one).result(),
        "99999 tokens": lambda: trainer.forward([datum([1] * 100_000)], "cross_entropy").result(),
        "not support topk_sample_logprobs": lambda: sampler.sample(
            PROMPT, 1, one, topk_sample_logprobs=2
        ).result(),
        "stable_reinforce": lambda: trainer.forward_backward(data, "stable_reinforce").result(),
        "dimuon": lambda: trainer.optim_step(types.DimuonParams(learning_rate=1.0)).result(),
        "clip_low": lambda: trainer.forward_backward(data, "ppo", {"clip_low": 0.1}).result(),
        "is a text": lambda: trainer.forward_backward(data, "ppo", {"kl": "low"}).result(),
    }
    for text, call in explained.items():
        assert text in _elapsed(call)
    # None of it has harmed the model, or its order.
    assert len(train(trainer, steps=2)) == 2


def test_a_wrong_key_is_refused(engine_server):
    message = _elapsed(
        lambda: tinker.ServiceClient(
            base_url=engine_server.base_url, api_key="tml-wrong"
        ).get_server_capabilities()
    )
    assert "API key is missing or wrong" in message


def test_another_version_of_the_sdk_is_refused(engine_server, monkeypatch):
    """The SDK with another version in its requests, as an old one would send."""
    monkeypatch.setattr("tinker.lib.internal_client_holder.tinker_sdk_version", "0.30.0")
    message = _elapsed(
        lambda: tinker.ServiceClient(
            base_url=engine_server.base_url, api_key=engine_server.api_key
        ).get_server_capabilities()
    )
    assert ">=0.38,<0.39" in message
    assert "0.30.0" in message


def sample_many(client, engine_server):
    sampler = client.create_sampling_client(base_model=engine_server.base_model).result()

    async def sample():
        requests = [
            sampler.sample(PROMPT, 1, types.SamplingParams(max_tokens=4, seed=seed))
            for seed in range(64)
        ]
        return await asyncio.gather(*requests)

    results = asyncio.run(sample())
    assert all(len(result.sequences) == 1 for result in results)
    return [list(result.sequences[0].tokens) for result in results]


def test_many_samples_at_once_and_both_ways_to_wait(client, engine_server, monkeypatch):
    """``retrieve_futures``, the SDK's other way, is one poll for all results."""
    expected = sample_many(client, engine_server)
    set_flag(client, monkeypatch, sample_use_retrieve_futures=True)
    assert sample_many(client, engine_server) == expected


def test_compressed_requests(client, trainer, monkeypatch):
    data = [datum([1, 2, 3])]
    plain = trainer.forward(data, "cross_entropy").result()
    set_flag(client, monkeypatch, proto_compress_fwdbwd=True)
    for pool in client.holder._client_pools.values():
        for each in pool._clients:
            monkeypatch.setattr(each, "_client_config", client.holder.get_client_config())
    assert trainer.forward(data, "cross_entropy").result().metrics == plain.metrics


def test_a_finished_session_is_over(engine_server):
    client = connect(engine_server)
    trainer = client.create_lora_training_client(engine_server.base_model, rank=2).result()
    train(trainer)
    session_id = client.holder.get_session_id()
    client.close("success").result()
    rest = connect(engine_server).create_rest_client()
    with pytest.raises(tinker.APIStatusError, match="has ended") as caught:
        rest.get_session(session_id).result()
    assert caught.value.status_code == 410


def test_a_restarted_engine_goes_on_from_disk(start_engine, tmp_path):
    engine = start_engine(tmp_path)
    client = connect(engine)
    trainer = client.create_lora_training_client(engine.base_model, rank=4, seed=1).result()
    train(trainer, steps=2)
    path = trainer.save_state("two").result().path
    expected = train(trainer, steps=3)
    engine.process.kill()
    engine.process.wait(timeout=10)

    again = start_engine(tmp_path)
    client = connect(again)
    rest = client.create_rest_client()
    assert [each.tinker_path for each in rest.list_user_checkpoints().result().checkpoints] == [
        path
    ]
    resumed = client.create_training_client_from_state_with_optimizer(path).result()
    assert resumed.model_id != trainer.model_id
    assert train(resumed, steps=3) == pytest.approx(expected, rel=1e-6)
    again.process.terminate()
    assert again.process.wait(timeout=20) == -signal.SIGTERM
    assert not list(tmp_path.glob("scratch-*"))


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_an_engine_dies_with_its_parent(tmp_path, tiny_model):
    """The parent is killed with SIGKILL, so it can tell the engine nothing."""
    script = """
import subprocess, sys
engine = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
for line in engine.stdout:
    if '"ready"' in line:
        print(engine.pid, flush=True)
"""
    command = [sys.executable, "-m", "art.cli", "serve", str(tiny_model)]
    parent = subprocess.Popen(
        [sys.executable, "-c", script, *command, "--root", str(tmp_path), "--child"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    pid = int(parent.stdout.readline())
    os.kill(pid, 0)
    parent.kill()
    parent.wait(timeout=10)
    deadline = time.monotonic() + 10
    while _runs(pid):
        assert time.monotonic() < deadline, "the engine has outlived its parent"
        time.sleep(0.05)


def _runs(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"  # nobody reaps it here
    except FileNotFoundError:
        return os.path.exists("/proc") is False


def _serve(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "art.cli", "serve", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.PIPE if "--child" not in arguments else None,
        env={**os.environ, **environment},
    )


def test_a_port_in_use_is_said(tmp_path, tiny_model):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ran = _serve(tiny_model, "--root", tmp_path, "--port", port)
    assert ran.returncode == 1
    assert f"art: port {port} on 127.0.0.1 is taken" in ran.stderr


def test_a_key_that_the_sdk_would_refuse_is_said(tmp_path, tiny_model):
    ran = _serve(tiny_model, "--root", tmp_path, ART_ENGINE_API_KEY="secret")
    assert ran.returncode == 1
    assert "must start with 'tml-'" in ran.stderr


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_person_is_told_how_to_use_it_and_can_end_it(tmp_path, tiny_model):
    environment = {**os.environ}
    environment.pop("ART_ENGINE_API_KEY", None)
    process = subprocess.Popen(
        [sys.executable, "-m", "art.cli", "serve", str(tiny_model), "--root", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    shown = {}
    for line in process.stdout:
        if "export" in line:
            name, _, value = line.strip().removeprefix("export ").partition("=")
            shown[name] = value
        if "TINKER_API_KEY" in shown:
            break
    client = tinker.ServiceClient(
        base_url=shown["TINKER_BASE_URL"], api_key=shown["TINKER_API_KEY"]
    )
    assert client.get_server_capabilities().supported_models
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130
    assert not list(tmp_path.glob("scratch-*"))
