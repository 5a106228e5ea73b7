"""Saving of a megatron model as a Hugging Face checkpoint, from all ranks that hold it.

Tensors have the shapes of the checkpoint, whichever these are; a *flat* one is ``[numbers]``, all
numbers of one or several parts in a row.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import torch
from megatron.core.models.gpt import GPTModel
from torch import Tensor, distributed

from art._internal.files import new_folder
from art.errors import CheckpointError

from .checkpoint import INDEX, CheckpointReader, CheckpointWriter
from .layout import Selection, index_of
from .mapping import Shard, WeightMapping, rank_slice_of

_MAX_FILE_BYTES = 5 * 10**9
_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx")


class _Source(NamedTuple):
    """The position of a part of a tensor in a rank's parameters.

    Args:
        rank: The rank that holds it.
        shard: The name of the parameter there.
        dim: The axis of the parameter along which the part is a range.
        offset: The start of the range.
        length: The length of the range.
        transposed: True if the part is transposed there.
    """

    rank: int
    shard: str
    dim: int
    offset: int
    length: int
    transposed: bool


_Plan = dict[str, dict[Selection, _Source]]


def save_checkpoint(
    model: GPTModel,
    mapping: WeightMapping,
    folder: Path,
    *,
    source: Path,
    max_file_bytes: int = _MAX_FILE_BYTES,
) -> None:
    """Save a model in the format of the checkpoint that it was loaded from.

    All ranks must call it, with the same arguments. Rank 0 writes; besides its part of the model it
    has the tensors of one file and one more tensor in memory. Names, dtypes and layouts are the
    source's, and so are the config, the tokenizer and the tensors that the model does not use: a
    model that was loaded and not changed is saved bit for bit as it was. The folder appears when it
    is complete.

    Args:
        model: This rank's part of the model.
        mapping: The family's mapping of the model.
        folder: The folder to create.
        source: The checkpoint that the model was loaded from.
        max_file_bytes: The size, in bytes, that only a file with a single tensor may exceed.

    Raises:
        CheckpointError: The folder exists or cannot be written, the source is not a checkpoint of
            this model, or the ranks do not hold the whole model. Raised on every rank.
    """
    with CheckpointReader(source) as reader:
        mapping = mapping.as_in(reader.names)
        shapes = mapping.tensors()
        plan = _agree_on_sources(model, mapping)
        _check_whole(shapes, plan)
        is_writer = distributed.get_rank() == 0
        output = _Output(folder, source, reader, mapping, max_file_bytes) if is_writer else None
        with output or nullcontext():
            _raise_everywhere(output)
            parameters = dict(model.named_parameters())
            for name, shape in shapes.items():
                tensor = _gather(shape, plan[name], parameters, model.config.params_dtype)
                if output is not None:
                    output.add(name, tensor)
            if output is not None:
                output.finish()
            _raise_everywhere(output)


class _Output:
    """The folder that rank 0 writes. Its errors are kept until every rank can raise them."""

    def __init__(
        self,
        folder: Path,
        source: Path,
        reader: CheckpointReader,
        mapping: WeightMapping,
        max_file_bytes: int,
    ) -> None:
        self.error: str | None = None
        self._folder, self._source = folder, source
        self._reader, self._mapping = reader, mapping
        self._max_file_bytes = max_file_bytes
        self._stack = ExitStack()
        self._copies: dict[str, list[str]] = {}
        for name, of in mapping.copies:
            if name in reader.names:
                self._copies.setdefault(of, []).append(name)

    def __enter__(self) -> "_Output":
        try:
            if self._folder.exists():
                raise FileExistsError(f"{self._folder} exists already")
            self._temporary = self._stack.enter_context(new_folder(self._folder))
            self._writer = CheckpointWriter(self._temporary, self._max_file_bytes)
        except OSError as error:
            self.error = str(error)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Removes the temporary folder after an error. After `finish` there is nothing left to do.
        self._stack.__exit__(kind, error, traceback)

    def add(self, name: str, tensor: Tensor) -> None:
        """Write a tensor, and its copies."""
        self._write(name, tensor)
        for copy in self._copies.get(name, ()):
            # In memory of its own, since safetensors refuses tensors that share memory.
            self._write(copy, tensor.clone())

    def finish(self) -> None:
        """Copy the tensors and files that are not the model's, and move the folder to its place."""
        for name in self._reader.names:
            if name.startswith(self._mapping.unused):
                self._write(name, self._reader.read(name))
        if self.error is not None:
            return
        try:
            self._writer.finish()
            for path in self._source.iterdir():
                if path.is_file() and path.suffix not in _WEIGHT_SUFFIXES and path.name != INDEX:
                    # Not its mode: a file that may not be written cannot be flushed to disk.
                    shutil.copyfile(path, self._temporary / path.name)
            self._stack.close()
        except OSError as error:
            self.error = str(error)

    def _write(self, name: str, tensor: Tensor) -> None:
        # The other ranks keep sending: after an error their tensors are received and dropped.
        if self.error is not None:
            return
        try:
            self._writer.add(name, tensor.to(self._reader.dtype(name)))
        except OSError as error:
            self.error = f"cannot write {self._folder}: {error}"


def _raise_everywhere(output: _Output | None) -> None:
    """Raise the error of rank 0 on every rank."""
    errors = [None if output is None else output.error]
    distributed.broadcast_object_list(errors, src=0)
    if errors[0] is not None:
        raise CheckpointError(f"the checkpoint was not written: {errors[0]}")


def _agree_on_sources(model: GPTModel, mapping: WeightMapping) -> _Plan:
    """Choose the rank that sends each part of each tensor, alike on every rank.

    Several ranks hold the same part in data parallelism, if tensor parallelism does not shard it,
    and if embeddings are tied: the lowest of them sends.
    """
    held_by_rank: list[_Plan] = [{} for _ in range(distributed.get_world_size())]
    distributed.all_gather_object(held_by_rank, _held(mapping.shards(rank_slice_of(model))))
    plan: _Plan = {}
    for held in held_by_rank:
        for name, parts in held.items():
            plan[name] = parts | plan.get(name, {})
    return plan


def _held(shards: Iterator[Shard]) -> _Plan:
    """List the parts of each tensor that this rank holds."""
    held: _Plan = {}
    rank = distributed.get_rank()
    for shard in shards:
        for piece in shard.pieces:
            held.setdefault(piece.tensor, {})[piece.selection] = _Source(
                rank, shard.name, shard.dim, piece.offset, piece.length, piece.transposed
            )
    return held


def _check_whole(shapes: Mapping[str, tuple[int, ...]], plan: _Plan) -> None:
    for name, shape in shapes.items():
        parts = plan.get(name, {})
        held = sum(_shape_of(selection).numel() for selection in parts)
        if held != torch.Size(shape).numel():
            raise CheckpointError(
                f"the ranks hold {held} of the {torch.Size(shape).numel()} numbers of {name}"
            )


def _gather(
    shape: tuple[int, ...],
    parts: Mapping[Selection, _Source],
    parameters: Mapping[str, Tensor],
    dtype: torch.dtype,
) -> Tensor:
    """Assemble a tensor on rank 0; other ranks return an empty one."""
    rank = distributed.get_rank()
    by_rank: dict[int, list[tuple[Selection, _Source]]] = {}
    for selection, source in parts.items():
        by_rank.setdefault(source.rank, []).append((selection, source))
    device = next(iter(parameters.values())).device
    whole = torch.empty(shape if rank == 0 else 0, dtype=dtype)
    for sender, theirs in by_rank.items():
        selections = [selection for selection, _ in theirs]
        if sender == rank == 0:
            # Part by part: all of them in a row would be a second copy of the tensor.
            for selection, source in theirs:
                _scatter(_part(parameters, source).flatten().cpu(), whole, [selection])
        elif sender == rank:
            mine = [_part(parameters, source).flatten() for _, source in theirs]
            distributed.send(torch.cat(mine), dst=0)
        elif rank == 0:
            size = sum(_shape_of(selection).numel() for selection in selections)
            flat = torch.empty(size, dtype=dtype, device=device)
            distributed.recv(flat, src=sender)
            _scatter(flat.cpu(), whole, selections)
    return whole


def _scatter(flat: Tensor, whole: Tensor, selections: Sequence[Selection]) -> None:
    shapes = [_shape_of(selection) for selection in selections]
    parts = flat.split([shape.numel() for shape in shapes])
    for part, selection, shape in zip(parts, selections, shapes, strict=True):
        whole[index_of(selection)] = part.view(shape)


def _part(parameters: Mapping[str, Tensor], source: _Source) -> Tensor:
    parameter = parameters[source.shard].detach()
    part = parameter.narrow(source.dim, source.offset, source.length)
    return part.T if source.transposed else part


def _shape_of(selection: Selection) -> torch.Size:
    """Compute the shape of a selection, which has no axis for an index."""
    return torch.Size(len(taken) for taken in selection if not isinstance(taken, int))
