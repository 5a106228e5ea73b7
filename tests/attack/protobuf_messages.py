"""Hostile ``forward_backward`` bodies: messages of wrong content, broken bytes, broken zstd."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from random import Random
from typing import Any

import numpy as np
import zstandard
from tinker.proto import tinker_public_pb2 as pb

from art.formats.losses import LOSSES
from tests.attack.fuzz import Attacker
from tests.attack.http_client import Answer, Client, Request
from tests.attack.mutations import broken
from tests.attack.world import PROTOBUF, World, forward_backward_message, posted

_NUMBERS = (0.0, -0.0, 1.0, -1.0, 1e38, -1e38, float("nan"), float("inf"), float("-inf"), 1e-45)
_SIZES = (0, 1, 2, 3, 7, -1, 2**31 - 1, 2**31, 2**33, 2**62, -(2**63))
_TEXTS = ("", "x", "target_tokens", "weights", "é" * 40_000, "\x00", "cross_entropy ", "PPO")
_BOMB_BYTES = 300 << 20


@cache
def _bomb() -> bytes:
    """A few kilobytes of zstd that hold more than any body may."""
    compressor = zstandard.ZstdCompressor(level=1).compressobj()
    zeros = bytes(1 << 20)
    parts = [compressor.compress(zeros) for _ in range(_BOMB_BYTES >> 20)]
    return b"".join([*parts, compressor.flush()])


class ProtobufAttacker(Attacker):
    """Makes hostile requests to ``forward_backward``.

    Args:
        client: The connection.
        base_model: The engine's base model.
        bombs: How often a body is a bomb, of all.
    """

    def __init__(self, client: Client, base_model: str, *, bombs: float = 0.001) -> None:
        self._world = World(client, base_model)
        self._bombs = bombs

    def note(self, request: Request, answer: Answer) -> None:
        self._world.note(request, answer)

    def renew(self) -> None:
        self._world.renew()

    def request(self, rng: Random) -> Request:
        """Make a request."""
        message = self._message(rng)
        if rng.random() < 0.8:
            for _ in range(rng.randint(1, 3)):
                rng.choice(_CHANGES)(message, rng)
        request = posted(message)
        if rng.random() < 0.3:
            data = request.body
            for _ in range(rng.randint(1, 3)):
                data = broken(data, rng)
            request = replace(request, body=data)
        if rng.random() < 0.25:
            request = self._compressed(request, rng)
        if rng.random() < 0.02 and request.body:
            request = replace(request, cut=rng.randint(1, len(request.body)), patience=2.0)
        return replace(request, chunked=rng.random() < 0.05)

    def _message(self, rng: Random) -> Any:
        sequences = [
            [rng.randrange(16) for _ in range(rng.randint(2, 9))] for _ in range(rng.randint(1, 3))
        ]
        loss = "cross_entropy" if rng.random() < 0.6 else rng.choice(sorted(LOSSES))
        world = self._world
        return forward_backward_message(world.model_id, world.next_seq(rng), sequences, loss=loss)

    def _compressed(self, request: Request, rng: Random) -> Request:
        headers = {"Content-Type": PROTOBUF, "Content-Encoding": "zstd"}
        if rng.random() < self._bombs * 4:
            return replace(request, headers=headers, body=_bomb())
        body = zstandard.ZstdCompressor(write_checksum=rng.random() < 0.5).compress(request.body)
        match rng.randrange(6):
            case 0:
                body = body[: rng.randrange(len(body))]
            case 1:
                body = broken(body, rng)
            case 2:
                body += body
            case 3:
                headers["Content-Encoding"] = rng.choice(("gzip", "br", "zstd, zstd", "", "ZSTD"))
        return replace(request, headers=headers, body=body)


def _datum(message: Any, rng: Random) -> Any:
    return rng.choice(message.data) if message.data else message.data.add()


def _tensor(message: Any, rng: Random) -> Any:
    inputs = _datum(message, rng).loss_fn_inputs
    names = ("target_tokens", "target_tokens", "weights", "advantages", "logprobs", "mask", "")
    return inputs[rng.choice(names)]


def _array(rng: Random, dtype: str) -> bytes:
    count = rng.choice((0, 1, 2, 5, 8, 9, 70, 2_000))
    if dtype == "<f4":
        return np.array(rng.choices(_NUMBERS, k=count), dtype).tobytes()
    high = rng.choice((15, 15, 16, 2**31 - 1, 2**62 if dtype == "<i8" else 2**31 - 1))
    low = rng.choice((0, 0, -1, -high))
    return np.array([rng.randint(low, high) for _ in range(count)], dtype).tobytes()


def _change_tokens(message: Any, rng: Random) -> None:
    chunk = _datum(message, rng).model_input.add()
    data = _array(rng, "<i4")
    chunk.encoded_text.tokens = data[: len(data) - rng.choice((0, 0, 0, 1))]


def _change_chunk(message: Any, rng: Random) -> None:
    kinds = [field.name for field in pb.Chunk.DESCRIPTOR.fields]
    getattr(_datum(message, rng).model_input.add(), rng.choice(kinds)).SetInParent()


def _change_dense(message: Any, rng: Random) -> None:
    tensor = _tensor(message, rng)
    dtype = rng.choice(("<i8", "<f4", "<i4"))
    data = _array(rng, dtype)
    tensor.dense = data[: len(data) - rng.choice((0, 0, 0, 1, 3))]
    known = {"<i8": pb.DTYPE_INT64, "<f4": pb.DTYPE_FLOAT32, "<i4": pb.DTYPE_INT32}[dtype]
    tensor.dtype = rng.choice((known, known, known, rng.choice(pb.DType.values()), 99))


def _change_shape(message: Any, rng: Random) -> None:
    tensor = _tensor(message, rng)
    del tensor.shape[:]
    tensor.shape.extend(rng.choices(_SIZES, k=rng.choice((0, 1, 1, 2, 2, 3, 4, 200))))


def _change_sparse(message: Any, rng: Random) -> None:
    datum = _datum(message, rng)
    rows = sum(len(chunk.encoded_text.tokens) // 4 for chunk in datum.model_input)
    tensor = datum.loss_fn_inputs[rng.choice(("target_tokens", "weights"))]
    columns = rng.choice((1, 2, 3, 1_000, 2**20, 2**40, *_SIZES))
    del tensor.shape[:]
    tensor.shape.extend(rng.choice(((rows, columns), (rows, columns), (columns, rows), (rows,))))
    tensor.dtype = rng.choice((pb.DTYPE_INT64, pb.DTYPE_FLOAT32, pb.DTYPE_INT32))
    width = 4 if tensor.dtype != pb.DTYPE_INT64 else 8
    count = rng.choice((0, rows, 3))
    csr = tensor.sparse_csr
    csr.values = bytes(width * count)
    pointers = np.linspace(0, count, max(rows, 0) + 1).astype("<i8")
    if rng.random() < 0.3:
        pointers[rng.randrange(pointers.size)] = rng.choice(_SIZES)
    csr.crow_indices = pointers.tobytes()
    csr.col_indices = np.array(rng.choices((0, 0, 1, *_SIZES), k=count), "<i8").tobytes()


def _change_config(message: Any, rng: Random) -> None:
    key = rng.choice(("clip_low_threshold", "clip_high_threshold", "beta", *_TEXTS))
    if rng.random() < 0.5:
        message.loss_fn_config[key] = rng.choice(_NUMBERS)
    elif rng.random() < 0.5:
        message.loss_fn_config_v2[key].number = rng.choice(_NUMBERS)
    else:
        message.loss_fn_config_v2[key].text = rng.choice(_TEXTS)


def _change_loss(message: Any, rng: Random) -> None:
    message.loss_fn = rng.choice(_TEXTS)


def _change_model(message: Any, rng: Random) -> None:
    message.model_id = rng.choice((*_TEXTS, "a:train:0"))


def _change_seq(message: Any, rng: Random) -> None:
    message.seq_id = rng.choice((0, -1, 1, 2, 2**31 - 1, -(2**31)))


def _repeat_data(message: Any, rng: Random) -> None:
    datum = pb.Datum()
    datum.CopyFrom(_datum(message, rng))
    message.data.extend([datum] * rng.choice((1, 50, 1_000)))


def _clear(message: Any, rng: Random) -> None:
    message.ClearField(rng.choice(message.DESCRIPTOR.fields).name)


def _forward_only(message: Any, rng: Random) -> None:
    message.forward_only = True


_CHANGES: tuple[Callable[[Any, Random], None], ...] = (
    _change_tokens,
    _change_chunk,
    _change_dense,
    _change_dense,
    _change_shape,
    _change_sparse,
    _change_sparse,
    _change_config,
    _change_loss,
    _change_model,
    _change_seq,
    _repeat_data,
    _clear,
    _forward_only,
)
