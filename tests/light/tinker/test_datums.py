"""Datums predict each sampled token, and only those, from what came before it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from art.errors import ContextLengthError
from art.rl.kl_penalty import penalize_kl
from art.rl.sequences import TrainingSequence
from art.tinker.datums import (
    check_context_length,
    imitation_datums,
    policy_datums,
    token_advantages,
)


@st.composite
def sequences(draw: st.DrawFn) -> TrainingSequence:
    length = draw(st.integers(2, 12))
    mask = [False, *draw(st.lists(st.booleans(), min_size=length - 1, max_size=length - 1))]
    numbers = st.floats(-20, -(2**-10), width=32)
    return TrainingSequence(
        tokens=np.array(
            draw(st.lists(st.integers(0, 2**31 - 1), min_size=length, max_size=length))
        ),
        logprobs=np.array([draw(numbers) if m else 0.0 for m in mask], np.float32),
        mask=np.array(mask),
        advantage=draw(st.floats(-3, 3, width=32, allow_subnormal=False)),
    )


@given(st.lists(sequences(), max_size=4))
def test_policy_datums_align_everything_with_the_targets(batch: list[TrainingSequence]) -> None:
    for sequence, datum in zip(batch, policy_datums(batch, token_advantages(batch)), strict=True):
        inputs = {name: data.tolist() for name, data in datum.loss_fn_inputs.items()}
        assert set(inputs) == {"target_tokens", "logprobs", "advantages"}
        context = datum.model_input.to_ints()
        assert len(context) == len(sequence.tokens) - 1
        for i in range(len(context)):
            assert context[i] == sequence.tokens[i]
            assert inputs["target_tokens"][i] == sequence.tokens[i + 1]
            sampled = bool(sequence.mask[i + 1])
            assert inputs["logprobs"][i] == (sequence.logprobs[i + 1] if sampled else 0)
            assert inputs["advantages"][i] == (sequence.advantage if sampled else 0)


@given(st.lists(sequences(), max_size=4))
def test_imitation_datums_weigh_sampled_tokens(batch: list[TrainingSequence]) -> None:
    for sequence, datum in zip(batch, imitation_datums(batch), strict=True):
        assert datum.loss_fn_inputs["weights"].tolist() == sequence.mask[1:].tolist()
        assert datum.loss_fn_inputs["target_tokens"].tolist() == sequence.tokens[1:].tolist()


def test_dtypes_are_those_of_the_wire() -> None:
    sequence = TrainingSequence(np.arange(3), np.zeros(3, np.float32), np.ones(3, bool), 1.0)
    (datum,) = policy_datums([sequence], token_advantages([sequence]))
    dtypes = {name: data.dtype for name, data in datum.loss_fn_inputs.items()}
    assert dtypes == {"target_tokens": "int64", "logprobs": "float32", "advantages": "float32"}


@given(st.lists(sequences(), max_size=4), st.floats(0, 2), st.data())
def test_the_kl_penalty_is_the_documented_one(
    batch: list[TrainingSequence], coef: float, data: st.DataObject
) -> None:
    base = [
        np.array([np.nan, *data.draw(_logprobs(len(sequence.tokens) - 1))], np.float32)
        for sequence in batch
    ]
    penalized, mean = penalize_kl(batch, token_advantages(batch), base, coef)
    differences = [
        float(sequence.logprobs[i]) - float(base[s][i])
        for s, sequence in enumerate(batch)
        for i in range(len(sequence.tokens))
        if sequence.mask[i]
    ]
    expected_mean = sum(differences) / len(differences) if differences else 0.0
    assert mean == pytest.approx(expected_mean, abs=1e-5)
    for s, sequence in enumerate(batch):
        for i in range(len(sequence.tokens)):
            expected = 0.0
            if sequence.mask[i]:
                difference = float(sequence.logprobs[i]) - float(base[s][i])
                expected = sequence.advantage + coef * (expected_mean - difference)
            assert penalized[s][i] == pytest.approx(expected, abs=1e-4)


def _logprobs(length: int) -> st.SearchStrategy[list[float]]:
    logprobs = st.floats(-20, 0, width=32, allow_subnormal=False)
    return st.lists(logprobs, min_size=length, max_size=length)


def test_too_long_a_sequence_is_named() -> None:
    def of(length: int) -> TrainingSequence:
        return TrainingSequence(
            np.arange(length), np.zeros(length, np.float32), np.ones(length, bool), 1.0
        )

    check_context_length([of(8)], 8)
    with pytest.raises(ContextLengthError, match=r"sequence 1 of 3 has 9 tokens.*the 8 that fit"):
        check_context_length([of(8), of(9), of(8)], 8)
