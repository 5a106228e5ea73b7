"""Loading of a Hugging Face checkpoint into a megatron model.

Tensors have the shapes that the mapping gives them; V is the vocabulary, H the hidden size.
"""

from pathlib import Path

import torch
from megatron.core.models.gpt import GPTModel
from torch import Tensor

from art.errors import CheckpointError

from .checkpoint import CheckpointReader
from .mapping import Shard, WeightMapping, rank_slice_of


def load_weights(model: GPTModel, mapping: WeightMapping, folder: Path) -> None:
    """Load this rank's part of a model. Every rank reads by itself, and only what it holds.

    Besides the model, at most one piece of a tensor is in memory. Values are cast to the model's
    dtype.

    Args:
        model: This rank's part, as the family's handler built it.
        mapping: The family's mapping of that model.
        folder: A folder with safetensors files, whole or sharded.

    Raises:
        CheckpointError: A file is missing or cut short, or a tensor is missing, unknown, of
            another shape, or not floating point. The model is then at most partly loaded.
    """
    parameters = dict(model.named_parameters())
    with CheckpointReader(folder) as checkpoint:
        mapping = mapping.as_in(checkpoint.names)
        _check(checkpoint, mapping)
        for shard in mapping.shards(rank_slice_of(model)):
            _fill(parameters.pop(shard.name), shard, checkpoint)
    if parameters:
        raise CheckpointError(f"the mapping lacks parameters of the model: {', '.join(parameters)}")


def _check(checkpoint: CheckpointReader, mapping: WeightMapping) -> None:
    expected = mapping.tensors()
    copies = {name: of for name, of in mapping.copies if name in checkpoint.names}
    unused = {name for name in checkpoint.names if name.startswith(mapping.unused)}
    checkpoint.check(expected, frozenset(copies.keys() | unused))
    for name, of in copies.items():
        # In blocks of [V, H], which as a whole would be the largest tensor of the model.
        rows = expected[of][0]
        for start in range(0, rows, 4096):
            block = (range(start, min(start + 4096, rows)),)
            if not torch.equal(checkpoint.read(name, block), checkpoint.read(of, block)):
                raise CheckpointError(
                    f"{checkpoint.folder}: {name} differs from {of}, but the config ties them "
                    "(tie_word_embeddings)"
                )


@torch.no_grad()
def _fill(parameter: Tensor, shard: Shard, checkpoint: CheckpointReader) -> None:
    filled = 0
    for piece in shard.pieces:
        target = parameter.narrow(shard.dim, piece.offset, piece.length)
        part = checkpoint.read(piece.tensor, piece.selection)
        target.copy_(part.T if piece.transposed else part)
        filled += piece.length
    parameter.narrow(shard.dim, filled, parameter.shape[shard.dim] - filled).zero_()
