"""Training, saving and sampling with a tiny model, against the plain computation."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from art.errors import (
    CheckpointError,
    ContextLengthError,
    EngineError,
    InvalidRequestError,
    NotFoundError,
    TrainingDataError,
)
from art.executors.torch.executor import TorchExecutor
from art.executors.types import (
    Datum,
    LoraConfig,
    LossFunction,
    SampleRequest,
    SamplingParams,
)
from art.formats.adam import AdamParams

VOCABULARY = 49152
LORA = LoraConfig(rank=4, alpha=8, seed=7)
CROSS_ENTROPY = LossFunction(name="cross_entropy")
STEP = AdamParams(learning_rate=1e-2, eps=1e-8)


@pytest.fixture(scope="module")
def executor(tiny_model):
    # Small bounds, so that several passes and batches are needed.
    return TorchExecutor(tiny_model, device="cpu", max_tokens_per_pass=64)


@pytest.fixture
def model(executor):
    """A model whose adapter changes what it says: B is no longer zero."""
    executor.create_model("model", LORA)
    _randomise(executor, "model")
    yield "model"
    executor.unload_model("model")


@pytest.fixture
def sampler(executor, model, tmp_path):
    executor.save_weights(model, tmp_path, optimizer=False)
    executor.load_sampler("sampler", tmp_path)
    yield "sampler"
    executor.unload_sampler("sampler")


def _randomise(executor, model):
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in _parameters(executor, model).values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)


def _parameters(executor, model):
    return executor._adapters.parameters(f"model {model}")


def _gradients(executor, model):
    return {k: p.grad.clone() for k, p in _parameters(executor, model).items()}


def _datum(tokens, seed=0, **inputs):
    rng = np.random.default_rng(seed)
    tokens = np.asarray(tokens, np.int64)
    targets = np.append(tokens[1:], rng.integers(0, VOCABULARY))
    weights = rng.normal(size=len(tokens)).astype(np.float32) * (rng.random(len(tokens)) < 0.7)
    return Datum(
        tokens=tokens, loss_inputs={"target_tokens": targets, "weights": weights, **inputs}
    )


def _plain_logprobs(executor, model, datum):
    """One sequence at a time, all logits, through the model's own forward."""
    tokens = torch.from_numpy(datum.tokens)[None]
    with executor._adapters.active(f"model {model}", trainable=True):
        logits = executor._language_model.model(input_ids=tokens, use_cache=False).logits[0]
    logprobs = torch.log_softmax(logits, -1)
    targets = torch.from_numpy(datum.loss_inputs["target_tokens"])
    flat = targets.reshape(len(tokens[0]), -1)
    return logprobs.gather(1, flat).reshape(targets.shape)


TREES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=20), min_size=1, max_size=6)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(tails=TREES, shared=st.integers(0, 30))
def test_packed_trees_equal_plain_sequences(executor, model, tails, shared):
    prefix = np.arange(100, 100 + shared).tolist()
    data = [_datum(prefix + tail, seed) for seed, tail in enumerate(tails)]
    executor._models[model].optimizer.clear()
    result = executor.forward_backward(model, data, CROSS_ENTROPY, backward=True)
    packed = _gradients(executor, model)
    executor._models[model].optimizer.clear()
    loss = torch.zeros(())
    for datum, output in zip(data, result.outputs, strict=True):
        logprobs = _plain_logprobs(executor, model, datum)
        np.testing.assert_allclose(output["logprobs"], logprobs.detach(), atol=1e-5, rtol=1e-6)
        loss = loss - (torch.from_numpy(datum.loss_inputs["weights"]) * logprobs).sum()
    loss.backward()
    assert result.metrics["loss:sum"] == pytest.approx(loss.item(), rel=1e-4, abs=1e-3)
    plain = _gradients(executor, model)
    scale = max(float(gradient.abs().max()) for gradient in plain.values())
    for key, gradient in packed.items():
        assert torch.allclose(gradient, plain[key], rtol=1e-4, atol=1e-5 * scale), key


def test_gradients_add_up_over_calls_and_do_not_depend_on_the_split(executor, model):
    data = [_datum(range(10, 40), seed) for seed in range(5)]
    executor.forward_backward(model, data, CROSS_ENTROPY, backward=True)
    together = _gradients(executor, model)
    executor._models[model].optimizer.clear()
    for datum in data:
        executor.forward_backward(model, [datum], CROSS_ENTROPY, backward=True)
    for key, gradient in _gradients(executor, model).items():
        torch.testing.assert_close(gradient, together[key], rtol=1e-4, atol=1e-4)


def test_many_targets_a_position(executor, model):
    rng = np.random.default_rng(1)
    targets = rng.integers(0, VOCABULARY, (6, 3))
    weights = rng.random((6, 3)).astype(np.float32)
    datum = _datum(range(6), target_tokens=targets, weights=weights)
    result = executor.forward_backward(model, [datum], CROSS_ENTROPY, backward=False)
    plain = _plain_logprobs(executor, model, datum).detach().numpy()
    np.testing.assert_allclose(result.outputs[0]["logprobs"], plain, atol=1e-5)
    assert result.metrics["loss:sum"] == pytest.approx(-(weights * plain).sum(), rel=1e-5)


def test_chunked_logits_change_nothing(executor, model, monkeypatch):
    data = [_datum(range(10, 60), seed) for seed in range(2)]
    whole = executor.forward_backward(model, data, CROSS_ENTROPY, backward=True)
    gradients = _gradients(executor, model)
    executor._models[model].optimizer.clear()
    monkeypatch.setattr("art.executors.torch.language_model._MAX_LOGITS", 7 * VOCABULARY)
    chunked = executor.forward_backward(model, data, CROSS_ENTROPY, backward=True)
    assert chunked.metrics["loss:sum"] == pytest.approx(whole.metrics["loss:sum"], rel=1e-6)
    for key, gradient in _gradients(executor, model).items():
        # Sums in another order differ by the rounding of their largest terms.
        largest = float(gradients[key].abs().max())
        torch.testing.assert_close(gradient, gradients[key], rtol=1e-4, atol=1e-5 * largest)


def test_a_new_adapter_answers_as_the_base_does_and_its_seed_is_its_start(executor):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        executor.create_model(name, LoraConfig(rank=2, alpha=4, seed=seed, train_unembed=True))
    a, b, c = (_parameters(executor, name) for name in "abc")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert any(not torch.equal(a[key], c[key]) for key in a)
    assert all(not a[key].any() for key in a if "lora_B" in key)
    assert {key.split(".")[-3] for key in a} >= {"q_proj", "down_proj", "lm_head"}
    datum = _datum(range(9))
    result = executor.forward_backward("a", [datum], CROSS_ENTROPY, backward=False)
    with executor._adapters.active(None, trainable=False), torch.no_grad():
        logits = executor._language_model.model(torch.from_numpy(datum.tokens)[None]).logits[0]
    plain = torch.log_softmax(logits, -1)[range(9), datum.loss_inputs["target_tokens"]]
    np.testing.assert_allclose(result.outputs[0]["logprobs"], plain, atol=1e-5)
    for name in "abc":
        executor.unload_model(name)


@pytest.mark.parametrize(("part", "module"), [("train_attn", "q_proj"), ("train_mlp", "up_proj")])
def test_parts_of_the_model_can_be_left_out(executor, part, module, tmp_path):
    lora = LoraConfig(rank=2, alpha=4, seed=0, train_attn=False, train_mlp=False)
    with pytest.raises(InvalidRequestError, match="nothing to train"):
        executor.create_model("none", lora)
    lora = LoraConfig(**{**_as_dict(lora), part: True})
    executor.create_model("part", lora)
    assert any(module in key for key in _parameters(executor, "part"))
    assert len({"mlp" in key for key in _parameters(executor, "part")}) == 1
    executor.save_weights("part", tmp_path, optimizer=False)
    read = executor.lora_config_of(tmp_path)
    assert _as_dict(read) == {**_as_dict(lora), "seed": None}
    executor.unload_model("part")


def _as_dict(lora):
    return {name: getattr(lora, name) for name in lora.__dataclass_fields__}


def _adamw(p, gradients, params):
    """Loshchilov and Hutter, algorithm 2, in numpy."""
    m = v = np.zeros_like(p)
    for t, g in enumerate(gradients, 1):
        p = p - params.learning_rate * params.weight_decay * p
        m = params.beta1 * m + (1 - params.beta1) * g
        v = params.beta2 * v + (1 - params.beta2) * g**2
        m_hat, v_hat = m / (1 - params.beta1**t), v / (1 - params.beta2**t)
        p = p - params.learning_rate * m_hat / (np.sqrt(v_hat) + params.eps)
    return p


@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_optim_step_is_adamw_with_global_clipping(executor, model, clip):
    params = AdamParams(learning_rate=1e-2, eps=1e-8, weight_decay=0.1, grad_clip_norm=clip)
    start = {k: p.detach().double().numpy().copy() for k, p in _parameters(executor, model).items()}
    history = {key: [] for key in start}
    for step in range(3):
        executor.forward_backward(model, [_datum(range(20), step)], CROSS_ENTROPY, backward=True)
        gradients = {k: g.double().numpy() for k, g in _gradients(executor, model).items()}
        norm = np.sqrt(sum((g**2).sum() for g in gradients.values()))
        factor = clip / norm if 0 < clip < norm else 1.0
        for key, gradient in gradients.items():
            history[key].append(gradient * factor)
        assert executor.optim_step(model, params)["grad_norm:mean"] == pytest.approx(norm, rel=1e-5)
    for key, parameter in _parameters(executor, model).items():
        expected = _adamw(start[key], history[key], params)
        np.testing.assert_allclose(parameter.detach(), expected, atol=2e-6, rtol=1e-4)


def test_a_checkpoint_resumes_bit_for_bit(executor, tiny_model, model, tmp_path):
    def train(who, name, steps):
        for step in steps:
            who.forward_backward(name, [_datum(range(20), step)], CROSS_ENTROPY, backward=True)
            who.optim_step(name, STEP)

    train(executor, model, range(3))
    executor.save_weights(model, tmp_path, optimizer=True)
    assert float(load_file(tmp_path / "optimizer.safetensors")["step"]) == 3
    train(executor, model, [3])

    elsewhere = TorchExecutor(tiny_model, device="cpu", max_tokens_per_pass=64)
    elsewhere.create_model("again", elsewhere.lora_config_of(tmp_path))
    elsewhere.load_weights("again", tmp_path, optimizer=True)
    train(elsewhere, "again", [3])
    ours, theirs = _parameters(executor, model), _parameters(elsewhere, "again")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_saved_adapter_is_one_for_peft(executor, tiny_model, model, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    executor.save_weights(model, tmp_path, optimizer=False)
    datum = _datum(range(12))
    ours = executor.forward_backward(model, [datum], CROSS_ENTROPY, backward=False)
    peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), tmp_path)
    with torch.no_grad():
        logits = peft(torch.from_numpy(datum.tokens)[None]).logits[0]
    theirs = torch.log_softmax(logits, -1)[range(12), datum.loss_inputs["target_tokens"]]
    np.testing.assert_allclose(ours.outputs[0]["logprobs"], theirs, atol=1e-5)


def test_a_checkpoint_that_does_not_fit_changes_nothing(executor, model, tmp_path):
    executor.create_model("wide", LoraConfig(rank=8, alpha=8, seed=0))
    executor.save_weights("wide", tmp_path, optimizer=False)
    executor.unload_model("wide")
    before = {k: p.detach().clone() for k, p in _parameters(executor, model).items()}
    with pytest.raises(CheckpointError, match="rank 8"):
        executor.load_weights(model, tmp_path, optimizer=False)
    executor.save_weights(model, tmp_path, optimizer=False)
    with pytest.raises(CheckpointError, match=r"optimizer\.safetensors"):
        executor.load_weights(model, tmp_path, optimizer=True)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="cannot read"):
        executor.load_weights(model, tmp_path, optimizer=False)
    with pytest.raises(CheckpointError, match="no readable LoRA"):
        executor.load_sampler("s", tmp_path / "absent")
    assert all(torch.equal(p, before[k]) for k, p in _parameters(executor, model).items())


BAD_DATA = {
    "no tokens": ({"tokens": []}, TrainingDataError, "has no tokens"),
    "too long": ({"tokens": [1] * 513}, ContextLengthError, "513 tokens.*512"),
    "token outside": ({"tokens": [0, VOCABULARY]}, TrainingDataError, "outside the vocabulary"),
    "negative token": ({"tokens": [0, -1]}, TrainingDataError, "token id -1"),
    "target outside": (
        {"tokens": [0, 1], "target_tokens": np.array([1, VOCABULARY])},
        TrainingDataError,
        "datum 1, target_tokens has token id 49152",
    ),
    "wrong length": (
        {"tokens": [0, 1], "target_tokens": np.array([1])},
        TrainingDataError,
        "shape",
    ),
    "wrong shape": (
        {"tokens": [0, 1], "weights": np.ones(3, np.float32)},
        TrainingDataError,
        r"weights has shape \[3\]",
    ),
    "not finite": (
        {"tokens": [0, 1], "weights": np.array([1, np.nan], np.float32)},
        TrainingDataError,
        "NaN or infinite",
    ),
    "unknown input": (
        {"tokens": [0, 1], "advantages": np.ones(2, np.float32)},
        TrainingDataError,
        "unknown loss input 'advantages'",
    ),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_is_refused_and_leaves_the_gradients(executor, model, case):
    fields, error, message = BAD_DATA[case]
    good = _datum(range(5))
    executor.forward_backward(model, [good], CROSS_ENTROPY, backward=True)
    before = _gradients(executor, model)
    bad = (
        _datum(**fields)
        if len(fields["tokens"])
        else Datum(tokens=np.empty(0, np.int64), loss_inputs=good.loss_inputs)
    )
    with pytest.raises(error, match=message):
        executor.forward_backward(model, [good, bad], CROSS_ENTROPY, backward=True)
    after = _gradients(executor, model)
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_missing_inputs_and_unknown_names_are_refused(executor, model):
    datum = _datum(range(5))
    with pytest.raises(TrainingDataError, match="lacks loss input 'advantages'"):
        executor.forward_backward(model, [datum], LossFunction(name="ppo"), backward=True)
    with pytest.raises(InvalidRequestError, match="unknown loss"):
        executor.forward_backward(model, [datum], LossFunction(name="grpo"), backward=True)
    with pytest.raises(TrainingDataError, match="no gradients"):
        executor.optim_step(model, STEP)
    executor.forward_backward(model, [datum], CROSS_ENTROPY, backward=False)
    with pytest.raises(TrainingDataError, match="no gradients"):
        executor.optim_step(model, STEP)
    with pytest.raises(NotFoundError, match="'nobody'"):
        executor.forward_backward("nobody", [datum], CROSS_ENTROPY, backward=True)
    with pytest.raises(InvalidRequestError, match="already"):
        executor.create_model(model, LORA)
    with pytest.raises(InvalidRequestError, match="rank"):
        executor.create_model("zero", LoraConfig(rank=0, alpha=1))


def test_a_step_that_would_destroy_the_weights_is_not_taken(executor, model):
    before = {k: p.detach().clone() for k, p in _parameters(executor, model).items()}
    datum = Datum(
        tokens=np.arange(3),
        loss_inputs={
            "target_tokens": np.arange(3),
            "logprobs": np.full(3, -1e4, np.float32),
            "advantages": np.ones(3, np.float32),
        },
    )
    loss = LossFunction(name="importance_sampling")
    executor.forward_backward(model, [datum], loss, backward=True)
    with pytest.raises(EngineError, match="the step was not taken"):
        executor.optim_step(model, STEP)
    assert all(torch.equal(p, before[k]) for k, p in _parameters(executor, model).items())
    with pytest.raises(InvalidRequestError, match="beta1"):
        executor.optim_step(model, AdamParams(learning_rate=1e-3, beta1=1.0))


def _sampled(executor, sampler, prompts, **params):
    requests = [
        SampleRequest(
            sampler_id=sampler,
            prompt=np.asarray(prompt, np.int64),
            num_samples=1,
            params=SamplingParams(**params),
        )
        for prompt in prompts
    ]
    return executor.sample(requests)


def test_sampled_logprobs_are_those_of_training(executor, model, sampler):
    prompts = [range(3), range(40), range(17), [5], range(40, 90)]
    results = _sampled(executor, sampler, prompts, max_tokens=12, temperature=0.7, top_k=50, seed=1)
    data, sampled = [], []
    for prompt, result in zip(prompts, results, strict=True):
        (sequence,) = result.sequences
        tokens = np.concatenate([np.asarray(prompt), sequence.tokens])
        data.append(Datum(tokens=tokens[:-1], loss_inputs={"target_tokens": tokens[1:]}))
        sampled.append(sequence.logprobs)
    trained = executor.forward_backward(model, data, CROSS_ENTROPY, backward=False)
    for output, logprobs in zip(trained.outputs, sampled, strict=True):
        np.testing.assert_allclose(output["logprobs"][-len(logprobs) :], logprobs, atol=1e-5)


def test_training_does_not_change_a_sampler(executor, model, sampler):
    before = _sampled(executor, sampler, [range(9)], max_tokens=8, temperature=0.0)
    executor.forward_backward(model, [_datum(range(9))], CROSS_ENTROPY, backward=True)
    executor.optim_step(model, AdamParams(learning_rate=1.0))
    after = _sampled(executor, sampler, [range(9)], max_tokens=8, temperature=0.0)
    np.testing.assert_array_equal(before[0].sequences[0].logprobs, after[0].sequences[0].logprobs)


def test_greedy_sampling_is_that_of_transformers(executor):
    prompts = [list(range(30, 30 + n)) for n in (4, 11, 2)]
    results = _sampled(executor, None, prompts, max_tokens=16, temperature=0.0)
    for prompt, result in zip(prompts, results, strict=True):
        with executor._adapters.active(None, trainable=False):
            plain = executor._language_model.model.generate(
                torch.tensor([prompt]), max_new_tokens=16, do_sample=False
            )[0, len(prompt) :]
        assert result.sequences[0].tokens.tolist() == plain.tolist()


def test_a_seed_gives_the_same_tokens_in_any_company(executor, sampler):
    def request(prompt, seed, num_samples):
        return SampleRequest(
            sampler_id=sampler,
            prompt=np.arange(prompt),
            num_samples=num_samples,
            params=SamplingParams(max_tokens=10, seed=seed),
        )

    def tokens(result):
        return [sequence.tokens.tolist() for sequence in result.sequences]

    (alone,) = executor.sample([request(20, 5, 3)])
    crowd = executor.sample([request(7, 1, 4), request(20, 5, 3), request(60, 2, 2)])
    assert tokens(alone) == tokens(crowd[1])
    assert len({tuple(sample) for sample in tokens(alone)}) == 3
    (one,) = executor.sample([request(20, 5, 1)])
    assert tokens(one) == tokens(alone)[:1]
    assert tokens(executor.sample([request(20, None, 1)])[0]) != tokens(
        executor.sample([request(20, None, 1)])[0]
    )


def test_what_ends_a_sample(executor):
    tokenizer = executor._language_model.tokenizer
    (free,) = _sampled(executor, None, [range(9)], max_tokens=12, seed=3)
    tokens = free.sequences[0].tokens.tolist()
    assert free.sequences[0].stop_reason == "length"
    assert len(tokens) == 12
    stop = tokens[5]
    first = tokens.index(stop) + 1
    (by_id,) = _sampled(executor, None, [range(9)], max_tokens=12, seed=3, stop_token_ids=(stop,))
    assert by_id.sequences[0].tokens.tolist() == tokens[:first]
    assert by_id.sequences[0].stop_reason == "stop"
    string = tokenizer.decode(tokens[3:5])
    (by_text,) = _sampled(executor, None, [range(9)], max_tokens=12, seed=3, stop_strings=(string,))
    sampled = by_text.sequences[0].tokens.tolist()
    assert by_text.sequences[0].stop_reason == "stop"
    assert string in tokenizer.decode(sampled)
    assert string not in tokenizer.decode(sampled[:-1])
    (to_end,) = _sampled(executor, None, [range(500)], seed=3, stop_token_ids=(VOCABULARY,))
    assert len(to_end.sequences[0].tokens) == 12
    with pytest.raises(ContextLengthError, match="no room"):
        _sampled(executor, None, [range(512)], max_tokens=1)


def test_prompt_logprobs_and_the_most_likely_tokens(executor, sampler, model):
    prompt = np.arange(20, 45)
    request = SampleRequest(
        sampler_id=sampler,
        prompt=prompt,
        num_samples=1,
        params=SamplingParams(max_tokens=1),
        prompt_logprobs=True,
        topk_prompt_logprobs=3,
    )
    result, short = executor.sample(
        [request, SampleRequest(**{**_request_fields(request), "prompt": prompt[:1]})]
    )
    datum = Datum(tokens=prompt[:-1], loss_inputs={"target_tokens": prompt[1:]})
    plain = executor.forward_backward(model, [datum], CROSS_ENTROPY, backward=False).outputs[0]
    assert np.isnan(result.prompt_logprobs[0])
    np.testing.assert_allclose(result.prompt_logprobs[1:], plain["logprobs"], atol=1e-5)
    ids, logprobs = result.topk_prompt_logprobs
    assert ids[0].tolist() == [-1, -1, -1]
    assert np.isnan(logprobs[0]).all()
    for k in range(3):
        top = Datum(tokens=prompt[:-1], loss_inputs={"target_tokens": ids[1:, k]})
        plain = executor.forward_backward(model, [top], CROSS_ENTROPY, backward=False).outputs[0]
        np.testing.assert_allclose(logprobs[1:, k], plain["logprobs"], atol=1e-5)
    assert (np.diff(logprobs[1:]) <= 0).all()
    assert short.prompt_logprobs.shape == (1,)
    assert short.topk_prompt_logprobs[0].shape == (1, 3)


def _request_fields(request):
    return {name: getattr(request, name) for name in request.__dataclass_fields__}


def test_a_small_cache_bound_changes_nothing(tiny_model, executor):
    bounded = TorchExecutor(tiny_model, device="cpu", max_tokens_per_pass=64, max_cached_tokens=100)
    prompts = [range(n) for n in (30, 5, 30, 70, 12)]
    few = _sampled(bounded, None, prompts, max_tokens=70, seed=2)
    many = _sampled(executor, None, prompts, max_tokens=70, seed=2)
    for a, b in zip(few, many, strict=True):
        assert a.sequences[0].tokens.tolist() == b.sequences[0].tokens.tolist()


def test_64_requests_of_one_sampler_are_one_batch(executor, monkeypatch):
    shapes = []
    decode = executor._language_model.decode

    def counted(input_ids, *arguments):
        shapes.append(tuple(input_ids.shape))
        return decode(input_ids, *arguments)

    monkeypatch.setattr(executor._language_model, "decode", counted)
    params = {"max_tokens": 5, "stop_token_ids": (VOCABULARY,)}
    results = _sampled(executor, None, [range(10)] * 64, **params)
    assert shapes == [(1, 10)] + [(64, 1)] * 4
    assert len({tuple(result.sequences[0].tokens) for result in results}) > 1


@pytest.mark.parametrize(
    "params", [{"max_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"top_k": 0}]
)
def test_parameters_that_cannot_be_used_are_refused(executor, params):
    with pytest.raises(InvalidRequestError, match=next(iter(params))):
        _sampled(executor, None, [range(3)], **params)
    with pytest.raises(NotFoundError, match="sampler 'nobody'"):
        _sampled(executor, "nobody", [range(3)])
