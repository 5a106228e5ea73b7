"""The codec against the SDK's own encoders and decoders."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import BaseModel, ValidationError
from tinker import types as sdk
from tinker._compat import model_dump
from tinker.proto import tinker_public_pb2 as pb
from tinker.proto.request_conv import forward_backward_request_to_proto
from tinker.proto.response_conv import (
    deserialize_forward_backward_output,
    deserialize_sample_response,
)

from art.engine.commands import LoadWeights, SaveForSampling, SaveWeights
from art.engine.wire import bodies, protobuf, service_bodies, training_bodies
from art.engine.wire.sdk_version import check_sdk_version
from art.errors import IncompatibleClientError, InvalidRequestError, RequestTooLargeError
from art.executors.types import (
    ForwardBackwardResult,
    SampledSequence,
    SampleResult,
)

tokens = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=12)
float32 = st.floats(width=32, allow_nan=False)
config = st.dictionaries(st.text(max_size=8), st.floats(allow_nan=False, allow_infinity=False))


@st.composite
def sdk_datums(draw: st.DrawFn) -> sdk.Datum:
    chunks = draw(st.lists(tokens, min_size=1, max_size=3))
    length = sum(map(len, chunks))
    shape = draw(st.sampled_from([(length,), (length, 3)]))
    targets = draw(hnp.arrays(np.int64, shape, elements=st.integers(0, 2**40)))
    weights = draw(hnp.arrays(np.float32, shape, elements=float32))
    return sdk.Datum(
        model_input=sdk.ModelInput(chunks=[sdk.EncodedTextChunk(tokens=c) for c in chunks]),
        loss_fn_inputs={
            "target_tokens": sdk.TensorData.from_numpy(targets),
            "weights": sdk.TensorData.from_numpy(weights),
        },
    )


@settings(max_examples=60, deadline=None)
@given(
    data=st.lists(sdk_datums(), min_size=1, max_size=4),
    loss_config=config,
    forward_only=st.booleans(),
    compress=st.booleans(),
)
def test_forward_backward_requests_of_the_sdk_are_read_back(
    data: list[sdk.Datum], loss_config: dict[str, float | str], forward_only: bool, compress: bool
) -> None:
    request = sdk.ForwardBackwardRequest(
        forward_backward_input=sdk.ForwardBackwardInput(
            data=data, loss_fn="ppo", loss_fn_config=loss_config
        ),
        model_id="m:train:0",
        seq_id=7,
    )
    message = forward_backward_request_to_proto(request)
    message.forward_only = forward_only
    body = message.SerializeToString()
    if compress:
        body = protobuf.decompress(zstandard.ZstdCompressor().compress(body), max_bytes=1 << 20)
    parsed = protobuf.parse_forward_backward(body)
    call = protobuf.decode_forward_backward(parsed)

    assert (call.model_id, call.seq_id) == ("m:train:0", 7)
    assert call.backward is not forward_only
    assert (call.loss.name, call.loss.config) == ("ppo", loss_config)
    for sent, got in zip(data, call.data, strict=True):
        assert got.tokens.tolist() == sent.model_input.to_ints()
        assert got.tokens.dtype == np.int64
        for name, tensor in sent.loss_fn_inputs.items():
            np.testing.assert_array_equal(got.loss_inputs[name], tensor.to_numpy())
            assert got.loss_inputs[name].dtype == tensor.to_numpy().dtype


@settings(max_examples=30, deadline=None)
@given(dense=hnp.arrays(np.int64, (4, 5), elements=st.sampled_from([0, 0, 0, 7, 9])))
def test_sparse_tensors_of_the_sdk_are_read_back_dense(dense: npt.NDArray[np.int64]) -> None:
    torch = pytest.importorskip("torch")
    tensor = sdk.TensorData.from_torch_sparse(torch.from_numpy(dense))
    request = sdk.ForwardBackwardRequest(
        forward_backward_input=sdk.ForwardBackwardInput(
            data=[
                sdk.Datum(
                    model_input=sdk.ModelInput.from_ints([1, 2, 3, 4]),
                    loss_fn_inputs={"target_tokens": tensor},
                )
            ],
            loss_fn="cross_entropy",
        ),
        model_id="m",
        seq_id=1,
    )
    call = protobuf.decode_forward_backward(forward_backward_request_to_proto(request))
    np.testing.assert_array_equal(call.data[0].loss_inputs["target_tokens"], dense)


@settings(max_examples=60, deadline=None)
@given(
    arrays=st.lists(
        hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=2, max_side=6)), max_size=4
    ),
    metrics=st.dictionaries(st.text(max_size=8), st.floats(allow_nan=False)),
)
def test_the_sdk_reads_forward_backward_results(
    arrays: list[npt.NDArray[np.float32]], metrics: dict[str, float]
) -> None:
    outputs = [
        {"logprobs": array, "lengths": np.arange(len(array), dtype=np.float32)} for array in arrays
    ]
    body = protobuf.encode_forward_backward(ForwardBackwardResult(outputs=outputs, metrics=metrics))
    result = deserialize_forward_backward_output(body)

    assert result.metrics == metrics
    for sent, got in zip(arrays, result.loss_fn_outputs, strict=True):
        np.testing.assert_array_equal(got["logprobs"].to_numpy(), sent)
        np.testing.assert_array_equal(got["lengths"].to_numpy(), np.arange(sent.shape[0]))


@settings(max_examples=60, deadline=None)
@given(
    samples=st.lists(
        st.tuples(st.lists(st.integers(0, 2**31 - 1), max_size=6), st.booleans()), max_size=3
    ),
    prompt_length=st.integers(2, 6),
    k=st.integers(1, 3),
    data=st.data(),
)
def test_the_sdk_reads_samples(
    samples: list[tuple[list[int], bool]], prompt_length: int, k: int, data: st.DataObject
) -> None:
    sequences = [
        SampledSequence(
            tokens=np.array(sampled, dtype=np.int64),
            logprobs=-np.arange(len(sampled), dtype=np.float32),
            stop_reason="stop" if stopped else "length",
        )
        for sampled, stopped in samples
    ]
    prompt_logprobs = -np.arange(prompt_length, dtype=np.float32)
    prompt_logprobs[0] = np.nan
    topk_tokens = np.arange(prompt_length * k, dtype=np.int64).reshape(prompt_length, k)
    topk_logprobs = -np.ones((prompt_length, k), dtype=np.float32)
    topk_tokens[0], topk_logprobs[0] = -1, np.nan
    last_n = data.draw(st.none() | st.integers(1, prompt_length - 1))
    result = SampleResult(
        sequences=sequences,
        prompt_logprobs=prompt_logprobs,
        topk_prompt_logprobs=(topk_tokens, topk_logprobs),
    )
    got = deserialize_sample_response(protobuf.encode_sample(result, prompt_logprobs_last_n=last_n))

    for sent, sequence in zip(sequences, got.sequences, strict=True):
        assert list(sequence.tokens) == sent.tokens.tolist()
        assert list(sequence.logprobs or []) == sent.logprobs.tolist()
        assert sequence.stop_reason == sent.stop_reason
    first = 1 if last_n is None else prompt_length - last_n
    assert got.prompt_logprobs == [None] * first + prompt_logprobs[first:].tolist()
    topk = got.topk_prompt_logprobs or []
    assert not topk[0]
    assert [token for token, _ in topk[first] or []] == topk_tokens[first].tolist()
    # What was given is not written to.
    assert np.isnan(topk_logprobs[0]).all()
    assert topk_tokens[0].tolist() == [-1] * k


@given(
    chunks=st.lists(tokens, min_size=1, max_size=3),
    stop=st.sampled_from([None, [], [5, 6], ["a"], "bc"]),
    num_samples=st.integers(1, 9),
    temperature=st.floats(0, 2),
    seed=st.none() | st.integers(0, 2**62),
    prompt_logprobs=st.booleans(),
)
def test_sample_requests_of_the_sdk_are_read_back(
    chunks: list[list[int]],
    stop: str | list[str] | list[int] | None,
    num_samples: int,
    temperature: float,
    seed: int | None,
    prompt_logprobs: bool,
) -> None:
    request = sdk.SampleRequest(
        sampling_session_id="s:sample:0",
        seq_id=3,
        num_samples=num_samples,
        prompt=sdk.ModelInput(chunks=[sdk.EncodedTextChunk(tokens=c) for c in chunks]),
        sampling_params=sdk.SamplingParams(
            max_tokens=9, stop=stop, temperature=temperature, top_k=4, top_p=0.5, seed=seed
        ),
        prompt_logprobs=prompt_logprobs,
        topk_prompt_logprobs=2,
        record_stability_info=False,
    )
    command = bodies.SampleBody.model_validate(_json(request)).command()
    got = command.request

    assert (command.sampling_session_id, command.seq_id) == ("s:sample:0", 3)
    assert got.prompt.tolist() == [token for chunk in chunks for token in chunk]
    assert (got.num_samples, got.topk_prompt_logprobs) == (num_samples, 2)
    assert got.prompt_logprobs is prompt_logprobs
    assert (got.params.max_tokens, got.params.temperature) == (9, temperature)
    assert (got.params.top_k, got.params.top_p, got.params.seed) == (4, 0.5, seed)
    expected: dict[str, tuple[bool, tuple[int, ...], tuple[str, ...]]] = {
        "None": (True, (), ()),
        "[]": (False, (), ()),
        "[5, 6]": (False, (5, 6), ()),
        "['a']": (True, (), ("a",)),
        "bc": (True, (), ("bc",)),
    }
    params = got.params
    found = (command.ends_as_the_model_does, params.stop_token_ids, params.stop_strings)
    assert found == expected[str(stop)]


def _json(request: BaseModel) -> object:
    return model_dump(request, exclude_unset=False, exclude_none=True, mode="json")


def test_a_new_model_of_the_sdk_is_read_back() -> None:
    request = sdk.CreateModelRequest(
        session_id="s",
        model_seq_id=2,
        base_model="b",
        lora_config=sdk.LoraConfig(rank=8, seed=3, train_unembed=False),
    )
    command = training_bodies.CreateModelBody.model_validate(_json(request)).command()
    lora = command.lora
    assert (command.session_id, command.model_seq_id, command.base_model) == ("s", 2, "b")
    assert (lora.rank, lora.seed, lora.train_unembed, lora.train_mlp) == (8, 3, False, True)


def test_an_optimizer_step_of_the_sdk_is_read_back() -> None:
    params = sdk.AdamParams(learning_rate=0.5, weight_decay=0.1)
    request = sdk.OptimStepRequest(optim_params=params, model_id="m", seq_id=4)
    command = training_bodies.OptimStepBody.model_validate(_json(request)).command()
    adam = command.adam
    assert (command.model_id, command.seq_id) == ("m", 4)
    assert (adam.learning_rate, adam.weight_decay, adam.beta2, adam.eps) == (0.5, 0.1, 0.95, 1e-12)


def test_checkpoints_of_the_sdk_are_read_back() -> None:
    run = "s:train:0"
    place = {"model_id": run, "seq_id": 3}
    saved = training_bodies.SaveWeightsBody.model_validate({**place, "path": "one"}).command()
    assert isinstance(saved, SaveWeights)
    assert str(saved.path) == f"tinker://{run}/weights/one"
    named = training_bodies.SaveSamplerBody.model_validate(place).command()
    assert isinstance(named, SaveWeights)
    assert str(named.path) == f"tinker://{run}/sampler_weights/000003"
    unnamed = training_bodies.SaveSamplerBody.model_validate(
        {**place, "sampling_session_seq_id": 7}
    )
    assert unnamed.command() == SaveForSampling(model_id=run, seq_id=3, sampling_session_seq_id=7)
    loaded = training_bodies.LoadWeightsBody.model_validate(
        {**place, "path": f"tinker://{run}/weights/one", "optimizer": True}
    ).command()
    assert isinstance(loaded, LoadWeights)
    assert loaded.path == saved.path


def _dimuon() -> None:
    params = sdk.DimuonParams(learning_rate=1.0)
    request = sdk.OptimStepRequest(optim_params=params, model_id="m", seq_id=1)
    training_bodies.OptimStepBody.model_validate(_json(request)).command()


def _tensor(**fields: Any) -> None:
    message = pb.ForwardBackwardRequest(model_id="m", seq_id=1, loss_fn="ppo")
    datum = message.data.add()
    datum.model_input.add().encoded_text.tokens = np.arange(3, dtype=np.int32).tobytes()
    datum.loss_fn_inputs["x"].CopyFrom(pb.Tensor(**fields))
    protobuf.decode_forward_backward(message)


def _image() -> None:
    message = pb.ForwardBackwardRequest(model_id="m", seq_id=1)
    message.data.add().model_input.add().image.data = b"png"
    protobuf.decode_forward_backward(message)


def _text_in_config() -> None:
    message = pb.ForwardBackwardRequest(model_id="m", seq_id=1)
    message.data.add().model_input.add().encoded_text.tokens = b"\0\0\0\0"
    message.loss_fn_config_v2["kl"].text = "low"
    protobuf.decode_forward_backward(message)


_FRAME = zstandard.ZstdCompressor().compress(bytes(range(256)) * 40)
_WIDE = {"values": b"", "crow_indices": b"\0" * 16, "col_indices": b""}

MALFORMED: dict[str, Callable[[], object]] = {
    "not protobuf": lambda: protobuf.parse_forward_backward(b"\xff\xff\xff"),
    "no data": lambda: protobuf.decode_forward_backward(pb.ForwardBackwardRequest()),
    "an image": _image,
    "a text in the loss config": _text_in_config,
    "an unknown dtype": lambda: _tensor(dense=b"\0\0", dtype=pb.DTYPE_BFLOAT16),
    "half a float": lambda: _tensor(dense=b"\0\0\0", dtype=pb.DTYPE_FLOAT32),
    "a wrong shape": lambda: _tensor(dense=b"\0" * 12, dtype=pb.DTYPE_FLOAT32, shape=[4]),
    "a negative shape": lambda: _tensor(dense=b"\0" * 4, dtype=pb.DTYPE_FLOAT32, shape=[-1, -1]),
    "a sparse bomb": lambda: _tensor(
        sparse_csr=pb.SparseCsr(**_WIDE), dtype=pb.DTYPE_INT64, shape=[3, 1 << 30]
    ),
    "sparse indices out of range": lambda: _tensor(
        sparse_csr=pb.SparseCsr(
            values=b"\0" * 8,
            crow_indices=np.array([0, 1, 1, 1]).tobytes(),
            col_indices=np.array([9]).tobytes(),
        ),
        dtype=pb.DTYPE_INT64,
        shape=[3, 2],
    ),
    "a sparse tensor of other rows": lambda: _tensor(
        sparse_csr=pb.SparseCsr(**_WIDE), dtype=pb.DTYPE_INT64, shape=[1, 2]
    ),
    "a zstd frame cut short": lambda: protobuf.decompress(_FRAME[:-3], max_bytes=1 << 20),
    "a zstd frame with more behind it": lambda: protobuf.decompress(
        _FRAME + b"x", max_bytes=1 << 20
    ),
    "not zstd": lambda: protobuf.decompress(b"hello", max_bytes=10),
    "another optimizer": _dimuon,
    "an empty prompt": lambda: protobuf.concatenate_tokens([[]]),
    "a token beyond int64": lambda: protobuf.concatenate_tokens([[2**64]]),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_malformed_requests_are_refused(what: str) -> None:
    with pytest.raises(InvalidRequestError):
        MALFORMED[what]()


def test_a_zstd_bomb_is_refused_without_holding_it() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(1 << 28))
    assert len(bomb) < 1 << 16
    with pytest.raises(RequestTooLargeError):
        protobuf.decompress(bomb, max_bytes=1 << 20)


@pytest.mark.parametrize("version", ["0.3.0", "0.18.1", "0.21.9", "", "new", "9" * 5000])
def test_versions_of_the_sdk_that_are_too_old_are_told_the_oldest(version: str) -> None:
    with pytest.raises(IncompatibleClientError, match=r">=0\.22"):
        check_sdk_version(version)


@pytest.mark.parametrize("version", ["0.39.0", "0.40.0.dev1", "1.0.0"])
def test_versions_of_the_sdk_that_are_newer_are_let_in_with_one_line_in_the_log(
    version: str, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        check_sdk_version(version)
    [line] = [record.getMessage() for record in caplog.records]
    assert version in line
    assert "newest that this server was tested with is 0.38" in line


@pytest.mark.parametrize("version", ["0.22.0", "0.25.0", "0.38.0", "0.38.7", "0.38.1.dev2"])
def test_versions_of_the_sdk_that_the_tests_run_say_nothing(
    version: str, caplog: pytest.LogCaptureFixture
) -> None:
    check_sdk_version(version)
    assert not caplog.records


@pytest.mark.parametrize("value", [None, False, 0, 0.0, "", [], {}])
def test_a_field_of_a_newer_sdk_that_asks_for_nothing_is_passed_over(value: object) -> None:
    fields = {"sdk_version": "0.39.0", "new_field": value}
    assert service_bodies.ClientConfigBody.model_validate(fields).sdk_version == "0.39.0"


@pytest.mark.parametrize("value", [True, 1, "x", [0], {"a": None}])
def test_a_field_of_a_newer_sdk_that_asks_for_something_is_refused_by_name(value: object) -> None:
    fields = {"sdk_version": "0.39.0", "new_field": value}
    with pytest.raises(ValidationError, match="knows no field new_field"):
        service_bodies.ClientConfigBody.model_validate(fields)


def test_the_installed_sdk_is_in_the_range() -> None:
    from tinker import __version__

    check_sdk_version(__version__)


def test_the_sparse_tensors_of_a_request_share_one_budget_of_memory() -> None:
    """A few hundred bytes that would be gigabytes once dense."""
    message = pb.ForwardBackwardRequest(model_id="m", seq_id=1, loss_fn="cross_entropy")
    for _ in range(40):
        datum = message.data.add()
        datum.model_input.add().encoded_text.tokens = np.arange(2, dtype=np.int32).tobytes()
        sparse = pb.SparseCsr(values=b"", crow_indices=b"\0" * 24, col_indices=b"")
        datum.loss_fn_inputs["target_tokens"].CopyFrom(
            pb.Tensor(sparse_csr=sparse, dtype=pb.DTYPE_INT64, shape=[2, 1 << 20])
        )
    with pytest.raises(InvalidRequestError, match=r"may have 33554432\. Send fewer datums"):
        protobuf.decode_forward_backward(message)


def _sample(**fields: object) -> None:
    body: dict[str, object] = {
        "sampling_session_id": "s:sample:0",
        "seq_id": 0,
        "prompt": {"chunks": [{"tokens": [1, 2]}]},
        "sampling_params": {},
    }
    bodies.SampleBody.model_validate(body | fields).command()


def _inflight() -> None:
    body = {"model_id": "s:train:0", "seq_id": 1, "kind": "inflight"}
    training_bodies.SaveSamplerBody.model_validate(body).command()


def _access_token() -> None:
    body = {
        "model_id": "s:train:0",
        "seq_id": 1,
        "path": "tinker://s:train:0/weights/one",
        "optimizer": False,
        "weights_access_token": "secret",
    }
    training_bodies.LoadWeightsBody.model_validate(body).command()


UNSUPPORTED: dict[str, Callable[[], None]] = {
    "base_model of a sample": lambda: _sample(base_model="b"),
    "model_path of a sample": lambda: _sample(model_path="tinker://s:train:0/weights/one"),
    "record_stability_info": lambda: _sample(record_stability_info=True),
    "a chunk that is not text": lambda: _sample(prompt={"chunks": [{"type": "image"}]}),
    "sampling_session_id and seq_id": lambda: _sample(seq_id=None),
    "inflight": _inflight,
    "weights_access_token": _access_token,
}


@pytest.mark.parametrize("what", UNSUPPORTED)
def test_what_this_server_does_not_do_is_refused_by_name(what: str) -> None:
    with pytest.raises(InvalidRequestError, match=what):
        UNSUPPORTED[what]()
