"""The wire's binary messages, to and from the engine's own types.

Conversion happens here and in the modules beside, once, at the edge. The schema is the
SDK's ``tinker.proto.tinker_public_pb2``; byte layouts are those that its comments state
(little-endian arrays, row-major).
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import zstandard
from google.protobuf.message import DecodeError
from tinker.proto import tinker_public_pb2 as pb

from art.engine.commands import ForwardBackward
from art.engine.target_layout import TargetLayout
from art.errors import InvalidRequestError, RequestTooLargeError
from art.executors.types import (
    Datum,
    FloatArray,
    ForwardBackwardResult,
    IntArray,
    LossFunction,
    SampleResult,
)

PROTOBUF = "application/x-protobuf"

_DTYPES: dict[int, np.dtype[np.generic]] = {
    pb.DTYPE_FLOAT32: np.dtype("<f4"),
    pb.DTYPE_INT64: np.dtype("<i8"),
    pb.DTYPE_INT32: np.dtype("<i4"),
}
_EMPTY_TOPK_LOGPROB = -99999.0
# The most cells of all sparse tensors of a request, once they are dense: 256 MiB as int64.
_MAX_SPARSE_CELLS = 1 << 25
# Little at a time, since a byte can stand for thousands.
_COMPRESSED_CHUNK = 4096


def decompress(body: bytes, *, max_bytes: int) -> bytes:
    """Undo the zstd compression of a request body.

    Args:
        body: One zstd frame.
        max_bytes: Most bytes to produce; a small frame can hold gigabytes.

    Raises:
        InvalidRequestError: It is not zstd, is cut short, or something follows the frame.
        RequestTooLargeError: It holds more than ``max_bytes``.
    """
    frame = zstandard.ZstdDecompressor().decompressobj()
    data = bytearray()
    try:
        for start in range(0, len(body), _COMPRESSED_CHUNK):
            data += frame.decompress(body[start : start + _COMPRESSED_CHUNK])
            if len(data) > max_bytes:
                raise RequestTooLargeError(
                    f"the body holds more than {max_bytes} bytes once decompressed"
                )
    except zstandard.ZstdError as error:
        raise InvalidRequestError(f"the body is not one whole zstd frame: {error}") from error
    if not frame.eof or frame.unused_data:
        raise InvalidRequestError(
            "the body is not one whole zstd frame: it was cut short, or more follows"
        )
    return bytes(data)


def parse_forward_backward(body: bytes) -> pb.ForwardBackwardRequest:
    """Parse a request body; :func:`decode_forward_backward` then reads what it holds.

    Raises:
        InvalidRequestError: It is not a ``ForwardBackwardRequest``.
    """
    message = pb.ForwardBackwardRequest()
    try:
        message.ParseFromString(body)
    except DecodeError as error:
        raise InvalidRequestError(
            f"the body is not a protobuf ForwardBackwardRequest: {error}"
        ) from error
    return message


def decode_forward_backward(message: pb.ForwardBackwardRequest) -> ForwardBackward:
    """Turn a parsed request into the engine's command.

    Raises:
        InvalidRequestError: It holds no data, an image, a text in the loss config, or a tensor
            whose bytes, type and shape disagree.
    """
    if not message.data:
        raise InvalidRequestError("the request holds no data")
    decoder = _DatumDecoder()
    return ForwardBackward(
        model_id=message.model_id,
        seq_id=message.seq_id,
        data=tuple(decoder.decode(datum, index) for index, datum in enumerate(message.data)),
        loss=LossFunction(name=message.loss_fn, config=_decode_loss_config(message)),
        backward=not message.forward_only,
    )


def _decode_loss_config(message: pb.ForwardBackwardRequest) -> dict[str, float]:
    config = {key: float(value) for key, value in message.loss_fn_config.items()}
    for key, value in message.loss_fn_config_v2.items():
        if value.WhichOneof("value") == "text":
            raise InvalidRequestError(
                f"loss_fn_config[{key!r}] is a text; the losses of this server take numbers"
            )
        config[key] = float(value.number)
    for key, number in config.items():
        if not math.isfinite(number):
            raise InvalidRequestError(f"loss_fn_config[{key!r}] is {number}, not a finite number")
    return config


class _DatumDecoder:
    """Decodes the datums of one request, within one budget of memory."""

    def __init__(self) -> None:
        self._sparse_cells = _MAX_SPARSE_CELLS

    def decode(self, datum: pb.Datum, index: int) -> Datum:
        chunks: list[IntArray] = []
        for chunk in datum.model_input:
            if chunk.WhichOneof("chunk") != "encoded_text":
                raise InvalidRequestError(
                    f"datum {index} holds a chunk that is not text; this server takes tokens only"
                )
            tokens = _array(chunk.encoded_text.tokens, np.dtype("<i4"), f"datum {index}: tokens")
            chunks.append(tokens.astype(np.int64))
        tokens_T = np.concatenate(chunks) if chunks else np.empty(0, dtype=np.int64)
        if not tokens_T.size:
            raise InvalidRequestError(f"datum {index} has no tokens")
        inputs = {
            name: self._tensor(tensor, tokens_T.size, f"datum {index}: {name:.60}")
            for name, tensor in datum.loss_fn_inputs.items()
        }
        return Datum(tokens=tokens_T, loss_inputs=inputs)

    def _tensor(self, tensor: pb.Tensor, rows: int, where: str) -> npt.NDArray[np.generic]:
        dtype = _DTYPES.get(tensor.dtype)
        if dtype is None:
            raise InvalidRequestError(f"{where} has an unsupported dtype ({tensor.dtype})")
        shape = tuple(tensor.shape[:3])  # one more than any tensor here has
        if any(size < 0 for size in shape):
            raise InvalidRequestError(f"{where} has a negative size in its shape {shape}")
        if tensor.WhichOneof("encoding") == "sparse_csr":
            self._reserve(shape, rows, where)
            array = _decode_sparse(tensor.sparse_csr, dtype, shape, where)
        else:
            flat = _array(tensor.dense, dtype, where)
            if shape and math.prod(shape) != flat.size:
                raise InvalidRequestError(f"{where} has {flat.size} values and the shape {shape}")
            array = flat.reshape(shape) if shape else flat
        wide = np.int64 if np.issubdtype(array.dtype, np.integer) else np.float32
        return np.ascontiguousarray(array, dtype=wide)

    def _reserve(self, shape: tuple[int, ...], rows: int, where: str) -> None:
        """Refuse a sparse tensor before it is made dense, if it is too large or of another shape.

        The bytes of the request say nothing of its size.
        """
        if len(shape) != 2 or shape[0] != rows:
            raise InvalidRequestError(
                f"{where} is sparse and its shape {shape} is not [{rows} tokens, columns]"
            )
        cells = shape[0] * shape[1]
        if cells > self._sparse_cells:
            raise InvalidRequestError(
                f"{where} is sparse and has {cells} cells once it is dense; the sparse tensors of "
                f"one request may have {_MAX_SPARSE_CELLS}. Send fewer datums at once"
            )
        self._sparse_cells -= cells


def _decode_sparse(
    csr: pb.SparseCsr, dtype: np.dtype[np.generic], shape: tuple[int, ...], where: str
) -> npt.NDArray[np.generic]:
    values = _array(csr.values, dtype, where)
    crow = _array(csr.crow_indices, np.dtype("<i8"), f"{where} (row pointers)").astype(np.int64)
    col = _array(csr.col_indices, np.dtype("<i8"), f"{where} (column indices)").astype(np.int64)
    rows, columns = shape
    consistent = (
        crow.size == rows + 1
        and crow[0] == 0
        and crow[-1] == values.size
        and col.size == values.size
        and bool(np.all(np.diff(crow) >= 0))
        and bool(np.all((col >= 0) & (col < columns)))
    )
    if not consistent:
        raise InvalidRequestError(f"{where} has sparse indices that do not fit its shape {shape}")
    dense = np.zeros(shape, dtype=dtype)
    dense[np.repeat(np.arange(rows), np.diff(crow)), col] = values
    return dense


def _array(data: bytes, dtype: np.dtype[np.generic], where: str) -> npt.NDArray[np.generic]:
    if len(data) % dtype.itemsize:
        raise InvalidRequestError(
            f"{where} has {len(data)} bytes, not a multiple of {dtype.itemsize} ({dtype.name})"
        )
    return np.frombuffer(data, dtype=dtype)


def encode_forward_backward(result: ForwardBackwardResult) -> bytes:
    """Encode a result as a ``ForwardBackwardOutput``, one record a datum.

    One record a datum, since fields may differ in their trailing shape from datum to datum.
    """
    message = pb.ForwardBackwardOutput(loss_fn_output_type="ArrayRecord")
    for name, value in result.metrics.items():
        message.metrics[name] = value
    for output in result.outputs:
        record = message.loss_fn_outputs.add()
        record.type_tag = "ArrayRecord"
        record.num_datums = 1
        for name, array in output.items():
            _encode_batched(record.fields[name], array)
    return message.SerializeToString()


def _encode_batched(message: pb.BatchedTensor, array: npt.NDArray[np.generic]) -> None:
    integer = np.issubdtype(array.dtype, np.integer)
    data = np.ascontiguousarray(array, dtype="<i8" if integer else "<f4").tobytes()
    message.data = data
    message.offsets = np.array([0, len(data)], dtype="<i8").tobytes()
    message.dtype = pb.DTYPE_INT64 if integer else pb.DTYPE_FLOAT32
    message.trailing_shape.extend(array.shape[1:])


def encode_sample(
    result: SampleResult,
    *,
    prompt_logprobs_last_n: int | None = None,
    target_layout: TargetLayout | None = None,
) -> bytes:
    """Encode a result as a ``SampleResponse``.

    Args:
        result: What the executor sampled.
        prompt_logprobs_last_n: Keep the logprobs of the last so many prompt tokens only.
        target_layout: Where the targets of the prompt stood, if there were any.
    """
    message = pb.SampleResponse()
    for sequence in result.sequences:
        encoded = message.sequences.add(
            stop_reason=(
                pb.STOP_REASON_STOP if sequence.stop_reason == "stop" else pb.STOP_REASON_LENGTH
            ),
            tokens=sequence.tokens.astype("<i4").tobytes(),
            logprobs=sequence.logprobs.astype("<f4").tobytes(),
        )
        if sequence.topk_logprobs is not None:
            _encode_topk(encoded.topk_sampled_logprobs, *sequence.topk_logprobs, None)
    if result.prompt_logprobs is not None:
        logprobs_P = result.prompt_logprobs.astype("<f4")
        if prompt_logprobs_last_n is not None:
            logprobs_P[: logprobs_P.size - prompt_logprobs_last_n] = np.nan
        message.prompt_logprobs = logprobs_P.tobytes()
    if result.topk_prompt_logprobs is not None:
        _encode_topk(
            message.topk_prompt_logprobs, *result.topk_prompt_logprobs, prompt_logprobs_last_n
        )
    if result.target_prompt_logprobs is not None and target_layout is not None:
        _encode_targets(
            message.target_prompt_logprobs, result.target_prompt_logprobs, target_layout
        )
    if result.prompt_alternatives is not None:
        tokens_MK, logprobs_MK = result.prompt_alternatives
        _encode_dense(message.prompt_alt_tokens.tokens, tokens_MK.astype("<i4"), pb.DTYPE_INT32)
        _encode_dense(
            message.prompt_alt_tokens.logprobs, logprobs_MK.astype("<f4"), pb.DTYPE_FLOAT32
        )
    return message.SerializeToString()


def _encode_targets(message: pb.Tensor, values_L: FloatArray, layout: TargetLayout) -> None:
    cells_C = layout.fill(values_L).astype("<f4")
    if layout.csr is None:
        _encode_dense(message, cells_C.reshape(layout.shape), pb.DTYPE_FLOAT32)
        return
    crow, col_C = layout.csr
    message.sparse_csr.values = cells_C.tobytes()
    message.sparse_csr.crow_indices = crow.astype("<i8").tobytes()
    message.sparse_csr.col_indices = col_C.astype("<i8").tobytes()
    message.dtype = pb.DTYPE_FLOAT32
    message.shape.extend(layout.shape)


def _encode_dense(
    message: pb.Tensor, array: npt.NDArray[np.generic], dtype: "pb.DType.ValueType"
) -> None:
    message.dense = array.tobytes()
    message.dtype = dtype
    message.shape.extend(array.shape)


def _encode_topk(
    message: pb.TopkLogprobs, tokens_PK: IntArray, logprobs_PK: FloatArray, last_n: int | None
) -> None:
    tokens_PK, logprobs_PK = tokens_PK.astype("<i4"), logprobs_PK.astype("<f4")
    empty = np.isnan(logprobs_PK)
    if last_n is not None:
        empty[: len(empty) - last_n] = True
    tokens_PK[empty] = 0
    logprobs_PK[empty] = _EMPTY_TOPK_LOGPROB
    message.token_ids = tokens_PK.tobytes()
    message.logprobs = logprobs_PK.tobytes()
    message.length, message.k = tokens_PK.shape


def concatenate_tokens(chunks: Sequence[Sequence[int]]) -> IntArray:
    """Join the chunks of a prompt into int64 ``[P]``.

    Raises:
        InvalidRequestError: There are no tokens, or one does not fit.
    """
    try:
        tokens_P = np.array([token for chunk in chunks for token in chunk], dtype=np.int64)
    except OverflowError as error:
        raise InvalidRequestError(f"a token of the prompt is out of range: {error}") from error
    if not tokens_P.size:
        raise InvalidRequestError("the prompt has no tokens")
    return tokens_P
