"""What ``asample`` asks and answers beside tokens, against the SDK's own encoders and decoders.

Shapes: M positions of the prompt but the first, K columns, N sampled tokens.
"""

import json
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import ValidationError
from tinker import types as sdk
from tinker._compat import model_dump
from tinker.lib.public_interfaces.sampling_client import _tensor_data_to_model
from tinker.proto.response_conv import deserialize_sample_response

from art.engine.commands import Sample
from art.engine.wire import bodies, protobuf
from art.errors import InvalidRequestError
from art.executors.types import SampledSequence, SampleResult
from art.formats.sampling_controls import NO_CONTROLS, SamplingControls


def body(prompt: list[int], **fields: Any) -> dict[str, Any]:
    """The body of a request that the SDK makes."""
    request = sdk.SampleRequest(
        sampling_session_id="s:sample:0",
        seq_id=0,
        prompt=sdk.ModelInput.from_ints(prompt),
        sampling_params=sdk.SamplingParams(max_tokens=3),
        **fields,
    )
    return model_dump(request, exclude_unset=False, exclude_none=True, mode="json")


def read(fields: dict[str, Any]) -> Sample:
    return bodies.SampleBody.model_validate_json(json.dumps(fields)).command()


def with_controls(**controls: Any) -> dict[str, Any]:
    fields = body([1, 2])
    fields["sampling_params"]["art_controls"] = controls
    return fields


sequences = st.builds(
    lambda tokens, k: SampledSequence(
        tokens=np.array(tokens, np.int64),
        logprobs=-np.arange(len(tokens), dtype=np.float32),
        stop_reason="stop",
        topk_logprobs=None
        if k is None
        else (
            np.arange(1, len(tokens) * k + 1).reshape(-1, k),
            -np.arange(len(tokens) * k, dtype=np.float32).reshape(-1, k),
        ),
    ),
    st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=5),
    st.none() | st.integers(1, 4),
)


@given(sampled=st.lists(sequences, max_size=3))
def test_the_sdk_reads_the_likeliest_tokens_of_samples(sampled: list[SampledSequence]) -> None:
    encoded = protobuf.encode_sample(SampleResult(sequences=sampled))
    for sent, got in zip(sampled, deserialize_sample_response(encoded).sequences, strict=True):
        if sent.topk_logprobs is None:
            assert got.topk_logprobs is None
        else:
            tokens_NK, logprobs_NK = sent.topk_logprobs
            assert got.topk_logprobs == [
                list(zip(tokens_K.tolist(), logprobs_K.tolist(), strict=True))
                for tokens_K, logprobs_K in zip(tokens_NK, logprobs_NK, strict=True)
            ]


@settings(deadline=None)
@given(
    targets_MK=hnp.arrays(
        np.int64,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
        elements=st.just(-1) | st.integers(0, 2**31),
    ).filter(lambda targets: bool((targets >= 0).any())),
    sparse=st.booleans(),
)
def test_the_sdk_reads_target_logprobs_in_the_layout_that_it_sent(
    targets_MK: npt.NDArray[np.int64], sparse: bool
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tensor = (
            sdk.TensorData.from_torch_sparse(torch.tensor(targets_MK), pad_value=-1)
            if sparse
            else sdk.TensorData.from_numpy(targets_MK)
        )
    prompt = list(range(len(targets_MK) + 1))
    command = read(body(prompt, target_prompt_logprobs=_tensor_data_to_model(tensor)))
    rows_M, columns_M = np.nonzero(targets_MK >= 0)
    assert command.request.target_prompt_tokens is not None
    rows_L, tokens_L = command.request.target_prompt_tokens
    np.testing.assert_array_equal(rows_L, rows_M)
    np.testing.assert_array_equal(tokens_L, targets_MK[rows_M, columns_M])

    logprobs_L = -1 - np.arange(len(tokens_L), dtype=np.float32)
    result = SampleResult(sequences=[], target_prompt_logprobs=logprobs_L)
    got = deserialize_sample_response(
        protobuf.encode_sample(result, target_layout=command.target_layout)
    ).target_prompt_logprobs
    assert got is not None
    assert got.shape == [*targets_MK.shape]
    assert got.sparse_crow_indices == tensor.sparse_crow_indices
    expected_MK = np.zeros(targets_MK.shape, np.float32)
    expected_MK[rows_M, columns_M] = logprobs_L
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_array_equal(got.to_numpy(), expected_MK)


@pytest.mark.parametrize("positions", [0, 1, 3])
def test_the_sdk_reads_the_alternatives_of_a_prompt(positions: int) -> None:
    tokens_MK = np.arange(positions * 2).reshape(positions, 2)
    logprobs_MK = -np.arange(positions * 2, dtype=np.float32).reshape(positions, 2)
    result = SampleResult(sequences=[], prompt_alternatives=(tokens_MK, logprobs_MK))
    got = deserialize_sample_response(protobuf.encode_sample(result)).prompt_alt_tokens
    assert got is not None
    np.testing.assert_array_equal(got.tokens.to_numpy(), tokens_MK)
    np.testing.assert_array_equal(got.logprobs.to_numpy(), logprobs_MK)
    assert (got.tokens.dtype, got.logprobs.dtype) == ("int64", "float32")


def test_counts_of_the_sdk_are_read_back() -> None:
    request = read(body([1, 2], topk_sample_logprobs=3, prompt_alt_tokens_k=4)).request
    assert (request.topk_logprobs, request.prompt_alternatives) == (3, 4)


TARGETS: dict[str, dict[str, Any]] = {
    r"must be \[1, columns\]": {"data": [1, 2], "shape": [2, 1]},
    "has 3 values and the shape": {"data": [1, 2, 3], "shape": [1, 2]},
    "names no token": {"data": [-1, -1], "shape": [1, 2]},
    "out of range": {"data": [2**63], "shape": [1, 1]},
    "sparse indices that do not fit": {
        "data": [1],
        "shape": [1, 2],
        "sparse_crow_indices": [0, 1],
        "sparse_col_indices": [2],
    },
    "sparse indices that do not fit its": {
        "data": [1],
        "shape": [1, 2],
        "sparse_crow_indices": [0, 2],
        "sparse_col_indices": [0],
    },
    "sparse indices that do not fit its shape": {
        "data": [1],
        "shape": [1, 2],
        "sparse_crow_indices": [0, 1],
    },
}


@pytest.mark.parametrize("message", TARGETS)
def test_targets_that_cannot_be_used_are_refused(message: str) -> None:
    targets = TARGETS[message] | {"dtype": "int64"}
    with pytest.raises(InvalidRequestError, match=message):
        read(body([1, 2]) | {"target_prompt_logprobs": targets})


@given(
    controls=st.builds(
        SamplingControls,
        min_p=st.floats(0, 1),
        logit_bias=st.dictionaries(st.integers(0, 2**31 - 1), st.floats(-100, 100), max_size=5).map(
            lambda biases: tuple(biases.items())
        ),
        frequency_penalty=st.floats(-2, 2),
        presence_penalty=st.floats(-2, 2),
        repetition_penalty=st.floats(0.01, 100),
        grammar=st.none() | st.text(st.characters(codec="utf-8")),
    )
)
def test_controls_are_read_back(controls: SamplingControls) -> None:
    from art.tinker.controlled_sampling import controls_field

    fields = controls_field(controls)
    assert fields.keys() == set(controls.changed())
    assert read(with_controls(**fields)).request.params.controls == controls


def test_without_controls_none_are_set() -> None:
    assert read(body([1, 2])).request.params.controls == NO_CONTROLS
    assert read(with_controls()).request.params.controls == NO_CONTROLS


@pytest.mark.parametrize(
    ("controls", "message"),
    [
        ({"min_p": 1.1}, "min_p must be from 0 to 1"),
        ({"frequency_penalty": -3}, "frequency_penalty must be from -2 to 2"),
        ({"presence_penalty": 3}, "presence_penalty must be from -2 to 2"),
        ({"repetition_penalty": 0}, "repetition_penalty must be from 0.01 to 100"),
        ({"logit_bias": {"5": 100.5}}, "logit_bias of token 5 must be from -100 to 100"),
        ({"min_p": float("nan")}, "finite number"),
        ({"min_p": "0.5"}, "valid number"),
        ({"min_p": True}, "valid number"),
        ({"logit_bias": {"x": 1}}, "valid integer"),
        ({"logit_bias": {"-1": 1}}, "greater than or equal to 0"),
        ({"logit_bias": {str(2**31): 1}}, "less than 2147483648"),
        ({"logit_bias": {str(token): 1 for token in range(4097)}}, "4097 entries, of 4096"),
        ({"logit_bias": [[1, 2]]}, "should be an object"),
        ({"grammar": "x" * 262145}, "at most 262144 characters"),
        ({"grammar": 5}, "valid string"),
        ({"top_a": 0.5}, "knows no field top_a"),
    ],
)
def test_controls_that_cannot_be_used_are_refused(controls: dict[str, Any], message: str) -> None:
    with pytest.raises((InvalidRequestError, ValidationError), match=message):
        read(with_controls(**controls))
