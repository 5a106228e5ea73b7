"""Write a megatron model as a Hugging Face checkpoint, from all the ranks that hold it."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from megatron.core.models.gpt import GPTModel
from torch import Tensor, distributed

from art.errors import CheckpointError

from .checkpoint import INDEX, CheckpointReader, CheckpointWriter
from .layout import Selection, index_of
from .mapping import Shard, WeightMapping, place_of

_MAX_FILE_BYTES = 5 * 10**9
_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx")


class _Source(NamedTuple):
    """Where a part of a tensor is.

    Args:
        rank: The rank that holds it.
        shard: The parameter that it is in there.
        dim: The parameter's axis along which it lies.
        offset: Where it starts along that axis.
        length: How long it is there.
        transposed: Whether it lies there transposed.
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
    """Write a model as the checkpoint that it came from, with the weights that it has now.

    Every rank calls this, with the same arguments. Rank 0 writes, and has in memory one file's
    tensors and one more besides its part of the model. Names, dtypes and layouts are the source's,
    and so are the config, the tokenizer, and the tensors that the model has no use for: a model
    that was loaded and not changed comes out bit by bit as it was. The folder appears when it is
    complete.

    Args:
        model: This rank's part of the model.
        mapping: The family's mapping of the model.
        folder: The folder to make.
        source: The checkpoint that the model was loaded from.
        max_file_bytes: The size that no file exceeds unless one tensor does, in bytes.

    Raises:
        CheckpointError: The folder exists, the source is not a checkpoint of this model, the
            disk refuses, or the ranks do not hold the whole model. Raised on every rank.
    """
    with CheckpointReader(source) as reader:
        mapping = mapping.as_in(reader.names)
        shapes = mapping.tensors()
        plan = _agree_on_sources(model, mapping)
        _check_whole(shapes, plan)
        writer = None
        if distributed.get_rank() == 0:
            writer = _Output(folder, source, reader, mapping, max_file_bytes)
        try:
            _raise_everywhere(writer)
            parameters = dict(model.named_parameters())
            for name, shape in shapes.items():
                tensor = _gather(shape, plan[name], parameters, model.config.params_dtype)
                if writer is not None:
                    writer.add(name, tensor)
            if writer is not None:
                writer.finish()
            _raise_everywhere(writer)
        finally:
            if writer is not None:
                writer.discard()


class _Output:
    """Rank 0's side. Its errors wait until every rank can hear of them."""

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
        self._temporary = folder.with_name(f".{folder.name}.writing")
        self._reader, self._mapping = reader, mapping
        self._copies: dict[str, list[str]] = {}
        for name, of in mapping.copies:
            if name in reader.names:
                self._copies.setdefault(of, []).append(name)
        try:
            if folder.exists():
                raise FileExistsError(f"{folder} exists already")
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary.mkdir(parents=True)
            self._writer = CheckpointWriter(self._temporary, max_file_bytes)
        except OSError as error:
            self.error = str(error)

    def add(self, name: str, tensor: Tensor) -> None:
        """Write a tensor, and its copies."""
        self._write(name, tensor)
        for copy in self._copies.get(name, ()):
            # In memory of its own, since two names for one piece of it cannot be saved.
            self._write(copy, tensor.clone())

    def finish(self) -> None:
        """Write what the model has no part in, and put the folder in its place."""
        for name in self._reader.names:
            if name.startswith(self._mapping.unused):
                self._write(name, self._reader.read(name))
        if self.error is not None:
            return
        try:
            self._writer.finish()
            for path in self._source.iterdir():
                if path.is_file() and path.suffix not in _WEIGHT_SUFFIXES and path.name != INDEX:
                    shutil.copy2(path, self._temporary / path.name)
            self._temporary.rename(self._folder)
        except OSError as error:
            self.error = str(error)

    def discard(self) -> None:
        """Remove what was written, unless it is in its place."""
        shutil.rmtree(self._temporary, ignore_errors=True)

    def _write(self, name: str, tensor: Tensor) -> None:
        # The other ranks are sending: after an error their tensors are still taken, and dropped.
        if self.error is not None:
            return
        try:
            self._writer.add(name, tensor.to(self._reader.dtype(name)))
        except OSError as error:
            self.error = f"cannot write {self._folder}: {error}"


def _raise_everywhere(output: _Output | None) -> None:
    """Raise on every rank what stopped rank 0."""
    errors = [None if output is None else output.error]
    distributed.broadcast_object_list(errors, src=0)
    if errors[0] is not None:
        raise CheckpointError(f"the checkpoint was not written: {errors[0]}")


def _agree_on_sources(model: GPTModel, mapping: WeightMapping) -> _Plan:
    """Say, on every rank alike, which rank sends each part of each tensor.

    Ranks that hold the same part are the copies of data parallelism, of what tensor parallelism
    does not share out, and of tied embeddings: the lowest rank sends.
    """
    held: list[_Plan] = [{} for _ in range(distributed.get_world_size())]
    distributed.all_gather_object(held, _held(mapping.shards(place_of(model))))
    plan: _Plan = {}
    for of_rank in held:
        for name, parts in of_rank.items():
            plan[name] = parts | plan.get(name, {})
    return plan


def _held(shards: Iterator[Shard]) -> _Plan:
    """List what this rank holds of each tensor."""
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
    """Bring a tensor together on rank 0. What other ranks return is empty."""
    rank = distributed.get_rank()
    by_rank: dict[int, list[tuple[Selection, _Source]]] = {}
    for selection, source in parts.items():
        by_rank.setdefault(source.rank, []).append((selection, source))
    device = next(iter(parameters.values())).device
    whole = torch.empty(shape if rank == 0 else 0, dtype=dtype)
    for sender, theirs in by_rank.items():
        selections = [selection for selection, _ in theirs]
        if sender == rank == 0:
            # Part by part: all of them in a row would be the tensor once more.
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
    """The shape of a selection, without the axes of which one number is taken."""
    return torch.Size(len(taken) for taken in selection if not isinstance(taken, int))
