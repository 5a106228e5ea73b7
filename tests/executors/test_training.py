"""Loss, gradients and AdamW with a tiny model, against the plain computation."""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from art.errors import (
    ContextLengthError,
    EngineError,
    InvalidRequestError,
    NotFoundError,
    TrainingDataError,
)
from art.executors.torch.executor import TorchExecutor
from art.executors.types import Datum, LossFunction
from art.formats.adam import AdamParams
from tests.executors.torch_cases import (
    CROSS_ENTROPY,
    LORA,
    STEP,
    VOCABULARY,
    clear_gradients,
    copies,
    datum,
    gradients,
    parameters,
    plain_logprobs,
    unchanged,
)


@pytest.fixture
def model_in_float64(executor: TorchExecutor, model: str) -> Iterator[str]:
    """The model while all weights are float64, so that a difference is no rounding.

    In float32 the sum over the vocabulary in the output layer's backward pass is another one for
    other numbers of rows or threads. Where the gradients of a case nearly cancel, that alone came
    to 6e-5 of the largest, of the plain computation as well as of the packed one.
    """
    language_model = executor._language_model.model
    language_model.double()
    yield model
    language_model.float()


TREES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=20), min_size=1, max_size=6)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(tails=TREES, shared=st.integers(0, 30))
@example(tails=[[2, 0, 0, 2]], shared=2)  # gradients that nearly cancel
def test_packed_trees_equal_plain_sequences(
    executor: TorchExecutor, model_in_float64: str, tails: list[list[int]], shared: int
) -> None:
    model = model_in_float64
    prefix = np.arange(100, 100 + shared).tolist()
    data = [datum(prefix + tail, seed) for seed, tail in enumerate(tails)]
    clear_gradients(executor, model)
    result = executor.forward_backward(model, data, CROSS_ENTROPY, backward=True)
    packed = gradients(executor, model)
    clear_gradients(executor, model)
    loss = torch.zeros((), dtype=torch.float64)
    for each, output in zip(data, result.outputs, strict=True):
        logprobs = plain_logprobs(executor, f"model {model}", each)
        np.testing.assert_allclose(output["logprobs"], logprobs.detach(), atol=1e-5, rtol=1e-6)
        loss = loss - (torch.from_numpy(each.loss_inputs["weights"]) * logprobs).sum()
    loss.backward()
    assert result.metrics["loss:sum"] == pytest.approx(loss.item(), rel=1e-4, abs=1e-3)
    plain = gradients(executor, model)
    scale = max(float(gradient.abs().max()) for gradient in plain.values())
    for key, gradient in packed.items():
        assert torch.allclose(gradient, plain[key], rtol=1e-4, atol=1e-5 * scale), key


def test_gradients_add_up_over_calls_and_do_not_depend_on_the_split(
    executor: TorchExecutor, model: str
) -> None:
    data = [datum(range(10, 40), seed) for seed in range(5)]
    executor.forward_backward(model, data, CROSS_ENTROPY, backward=True)
    together = gradients(executor, model)
    clear_gradients(executor, model)
    for each in data:
        executor.forward_backward(model, [each], CROSS_ENTROPY, backward=True)
    for key, gradient in gradients(executor, model).items():
        torch.testing.assert_close(gradient, together[key], rtol=1e-4, atol=1e-4)


def test_each_of_many_targets_a_position_has_its_logprob(
    executor: TorchExecutor, model: str
) -> None:
    rng = np.random.default_rng(1)
    targets = rng.integers(0, VOCABULARY, (6, 3))
    weights = rng.random((6, 3)).astype(np.float32)
    each = datum(range(6), target_tokens=targets, weights=weights)
    result = executor.forward_backward(model, [each], CROSS_ENTROPY, backward=False)
    plain = plain_logprobs(executor, f"model {model}", each).detach().numpy()
    np.testing.assert_allclose(result.outputs[0]["logprobs"], plain, atol=1e-5)
    assert result.metrics["loss:sum"] == pytest.approx(-(weights * plain).sum(), rel=1e-5)


def test_chunked_logits_change_nothing(
    executor: TorchExecutor, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = [datum(range(10, 60), seed) for seed in range(2)]
    whole = executor.forward_backward(model, data, CROSS_ENTROPY, backward=True)
    expected = gradients(executor, model)
    clear_gradients(executor, model)
    monkeypatch.setattr("art.executors.torch.language_model._MAX_LOGITS", 7 * VOCABULARY)
    chunked = executor.forward_backward(model, data, CROSS_ENTROPY, backward=True)
    assert chunked.metrics["loss:sum"] == pytest.approx(whole.metrics["loss:sum"], rel=1e-6)
    for key, gradient in gradients(executor, model).items():
        # Sums in another order differ by the rounding of their largest terms.
        largest = float(expected[key].abs().max())
        torch.testing.assert_close(gradient, expected[key], rtol=1e-4, atol=1e-5 * largest)


def test_arrays_that_cannot_be_written_to_train_as_others_do_and_without_a_warning(
    executor: TorchExecutor, model: str
) -> None:
    each = datum(range(12))
    expected = executor.forward_backward(model, [each], CROSS_ENTROPY, backward=False)
    read_only = Datum(
        tokens=np.frombuffer(each.tokens.tobytes(), np.int64),
        loss_inputs={
            name: np.frombuffer(array.tobytes(), array.dtype)
            for name, array in each.loss_inputs.items()
        },
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = executor.forward_backward(model, [read_only], CROSS_ENTROPY, backward=True)
    assert result.metrics == pytest.approx(expected.metrics)


def _adamw(
    p: npt.NDArray[np.float64], history: list[npt.NDArray[np.float64]], params: AdamParams
) -> npt.NDArray[np.float64]:
    """Loshchilov and Hutter, algorithm 2, in numpy."""
    m = v = np.zeros_like(p)
    for t, g in enumerate(history, 1):
        p = p - params.learning_rate * params.weight_decay * p
        m = params.beta1 * m + (1 - params.beta1) * g
        v = params.beta2 * v + (1 - params.beta2) * g**2
        m_hat, v_hat = m / (1 - params.beta1**t), v / (1 - params.beta2**t)
        p = p - params.learning_rate * m_hat / (np.sqrt(v_hat) + params.eps)
    return p


@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_optim_step_is_adamw_with_global_clipping(
    executor: TorchExecutor, model: str, clip: float
) -> None:
    params = AdamParams(learning_rate=1e-2, eps=1e-8, weight_decay=0.1, grad_clip_norm=clip)
    start = {key: p.double().numpy() for key, p in copies(executor, model).items()}
    history: dict[str, list[npt.NDArray[np.float64]]] = {key: [] for key in start}
    for step in range(3):
        executor.forward_backward(model, [datum(range(20), step)], CROSS_ENTROPY, backward=True)
        found = {key: g.double().numpy() for key, g in gradients(executor, model).items()}
        norm = np.sqrt(sum((g**2).sum() for g in found.values()))
        factor = clip / norm if 0 < clip < norm else 1.0
        for key, gradient in found.items():
            history[key].append(gradient * factor)
        assert executor.optim_step(model, params)["grad_norm:mean"] == pytest.approx(norm, rel=1e-5)
    for key, parameter in parameters(executor, model).items():
        expected = _adamw(start[key], history[key], params)
        np.testing.assert_allclose(parameter.detach(), expected, atol=2e-6, rtol=1e-4)


BAD_DATA: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
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
def test_bad_data_is_refused_and_leaves_the_gradients(
    executor: TorchExecutor, model: str, case: str
) -> None:
    fields, error, message = BAD_DATA[case]
    good = datum(range(5))
    executor.forward_backward(model, [good], CROSS_ENTROPY, backward=True)
    before = gradients(executor, model)
    bad = datum(**fields) if fields["tokens"] else replace(good, tokens=np.empty(0, np.int64))
    with pytest.raises(error, match=message):
        executor.forward_backward(model, [good, bad], CROSS_ENTROPY, backward=True)
    after = gradients(executor, model)
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize(
    ("model_id", "loss", "error", "message"),
    [
        ("model", "ppo", TrainingDataError, "lacks loss input 'advantages'"),
        ("model", "grpo", InvalidRequestError, "unknown loss"),
        ("nobody", "cross_entropy", NotFoundError, "'nobody'"),
    ],
)
def test_what_cannot_be_computed_is_refused_by_name(
    executor: TorchExecutor,
    model: str,
    model_id: str,
    loss: str,
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        executor.forward_backward(
            model_id, [datum(range(5))], LossFunction(name=loss), backward=True
        )


@pytest.mark.parametrize("forward_first", [False, True])
def test_a_step_without_gradients_is_refused(
    executor: TorchExecutor, model: str, forward_first: bool
) -> None:
    if forward_first:
        executor.forward_backward(model, [datum(range(5))], CROSS_ENTROPY, backward=False)
    with pytest.raises(TrainingDataError, match="no gradients"):
        executor.optim_step(model, STEP)


def test_a_step_that_would_destroy_the_weights_is_not_taken(
    executor: TorchExecutor, model: str
) -> None:
    before = copies(executor, model)
    overflowing = Datum(
        tokens=np.arange(3),
        loss_inputs={
            "target_tokens": np.arange(3),
            "logprobs": np.full(3, -1e4, np.float32),
            "advantages": np.ones(3, np.float32),
        },
    )
    loss = LossFunction(name="importance_sampling")
    executor.forward_backward(model, [overflowing], loss, backward=True)
    with pytest.raises(EngineError, match="the step was not taken"):
        executor.optim_step(model, STEP)
    assert unchanged(executor, model, before)


@pytest.mark.parametrize(
    ("params", "steps_before"),
    [
        (AdamParams(learning_rate=1.0, eps=0.0), 0),
        (AdamParams(learning_rate=1e300, eps=1e-8), 0),
        (AdamParams(learning_rate=1e300, eps=1e-8), 1),
    ],
    ids=["eps is 0", "a huge learning rate first", "a huge learning rate later"],
)
def test_a_step_that_leaves_no_numbers_is_taken_back(
    executor: TorchExecutor, model: str, params: AdamParams, steps_before: int
) -> None:
    """Weights, state and what follows are as if the step had never been asked for."""

    def train(*also: AdamParams) -> dict[str, torch.Tensor]:
        executor.create_model("other", LORA)
        try:
            for step in (*[STEP] * steps_before, *also, STEP):
                # B is zero at first, so A has no gradient: Adam's 0 / 0 with eps 0.
                executor.forward_backward("other", [datum(range(9))], CROSS_ENTROPY, backward=True)
                if step is params:
                    with pytest.raises(EngineError, match="taken back"):
                        executor.optim_step("other", step)
                else:
                    executor.optim_step("other", step)
            return copies(executor, "other")
        finally:
            executor.unload_model("other")

    clean, attacked = train(), train(params)
    assert all(torch.equal(clean[key], attacked[key]) for key in clean)
