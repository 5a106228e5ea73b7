"""Datums predict each sampled token, and only those, from what came before it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from art.errors import ContextLengthError
from art.formats.losses import LOSSES, LossName
from art.rl.kl_penalty import penalize_kl
from art.rl.sequences import TrainingSequence
from art.tinker.datums import (
    loss_datums,
    token_advantages,
    within_context,
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


@pytest.mark.parametrize("loss_fn", LOSSES)
@given(batch=st.lists(sequences(), max_size=4))
def test_every_input_of_a_loss_is_aligned_with_the_targets(
    loss_fn: LossName, batch: list[TrainingSequence]
) -> None:
    datums = loss_datums(loss_fn, batch, token_advantages(batch))
    for sequence, datum in zip(batch, datums, strict=True):
        inputs = {name: data.tolist() for name, data in datum.loss_fn_inputs.items()}
        assert set(inputs) == LOSSES[loss_fn].inputs
        context = datum.model_input.to_ints()
        assert len(context) == len(sequence.tokens) - 1
        for i in range(len(context)):
            sampled = bool(sequence.mask[i + 1])
            expected = {
                "target_tokens": sequence.tokens[i + 1],
                "logprobs": sequence.logprobs[i + 1] if sampled else 0,
                "advantages": sequence.advantage if sampled else 0,
                "sequence_ratio_mask": sampled,
                "weights": sampled,
            }
            assert context[i] == sequence.tokens[i]
            assert {name: values[i] for name, values in inputs.items()} == {
                name: expected[name] for name in inputs
            }


@given(sequences())
def test_context_logprobs_stand_where_no_token_was_sampled(sequence: TrainingSequence) -> None:
    context_logprobs = np.arange(len(sequence.tokens), dtype=np.float32)
    (datum,) = loss_datums("dro", [sequence], token_advantages([sequence]), [context_logprobs])
    assert datum.loss_fn_inputs["logprobs"].tolist() == [
        sequence.logprobs[i] if sequence.mask[i] else context_logprobs[i]
        for i in range(1, len(sequence.tokens))
    ]


def test_dtypes_are_those_of_the_wire() -> None:
    sequence = TrainingSequence(np.arange(3), np.zeros(3, np.float32), np.ones(3, bool), 1.0)
    (datum,) = loss_datums("gspo", [sequence], token_advantages([sequence]))
    dtypes = {name: data.dtype for name, data in datum.loss_fn_inputs.items()}
    assert dtypes == {
        "target_tokens": "int64",
        "logprobs": "float32",
        "advantages": "float32",
        "sequence_ratio_mask": "float32",
    }


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


def test_sequences_beyond_the_context_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    def of(length: int) -> TrainingSequence:
        return TrainingSequence(
            np.arange(length), np.zeros(length, np.float32), np.ones(length, bool), 1.0
        )

    short, long = of(8), of(9)
    assert within_context([short], 8) == [short]
    assert caplog.text == ""
    assert within_context([short, long, short], 8) == [short, short]
    assert "1 of 3 training sequences have more than the 8 tokens" in caplog.text
    with pytest.raises(ContextLengthError, match=r"2 of 2.*the longest 9"):
        within_context([long, long], 8)
