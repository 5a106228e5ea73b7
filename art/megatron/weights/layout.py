"""How one megatron parameter is made of Hugging Face tensors, as data, read in both directions.

A parameter is the concatenation of parts, each a range of rows of a tensor. Where megatron
interleaves them, both are cut into groups: the first group of every part, then the second of every
part, and so on. Tensor-parallel ranks each take a whole number of groups. That one rule says it
all:

=================  =========================================  ===========================
parameter          parts                                      groups
=================  =========================================  ===========================
``linear_proj``    ``o_proj``, cut along its columns           one a rank
``linear_fc1``     ``gate_proj``, ``up_proj``                  one a rank
``linear_qkv``     ``q_proj``, ``k_proj``, ``v_proj``          one a key-value head
=================  =========================================  ===========================
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from art.errors import ConfigurationError


@dataclass(frozen=True)
class Part:
    """A range of a Hugging Face tensor.

    Args:
        tensor: The tensor's name; ``{layer}`` and ``{expert}`` stand for their numbers.
        shape: The tensor's shape, without the axis of experts where it is stacked.
        rows: The first row, and the one after the last; ``None`` is all. They are counted along
            the layout's ``dim``.
        order: Each group of rows is cut into this many blocks, taken in this order.
        experts: How many experts are stacked along an axis before the others; 0 is not stacked.
    """

    tensor: str
    shape: tuple[int, ...]
    rows: tuple[int, int] | None = None
    order: tuple[int, ...] = (0,)
    experts: int = 0


class Piece(NamedTuple):
    """A range of a tensor, and where it lies in a rank's shard of a parameter.

    Args:
        tensor: The tensor's name.
        selection: What to take of it.
        offset: Where it starts in the shard, along the layout's ``dim``.
        length: How long it is there.
    """

    tensor: str
    selection: tuple[int | slice, ...]
    offset: int
    length: int


@dataclass(frozen=True)
class Layout:
    """What a parameter is made of, and how ranks share it.

    Args:
        parts: What it is made of, in the order of the parameter.
        dim: The axis along which parts are joined and ranks share; ``None``: one part, which
            every rank has whole.
        groups: Into how many groups each part is cut; ``None`` is one for each rank.
        padded: Whether the ranks' shards are rounded up, the last of them with rows of zeros.
    """

    parts: tuple[Part, ...]
    dim: int | None = 0
    groups: int | None = None
    padded: bool = False

    def pieces(self, rank: int, size: int, *, layer: int = 0, expert: int = 0) -> Iterator[Piece]:
        """List what one rank's shard is made of, in the order of the shard.

        Args:
            rank: The rank among those that share the parameter.
            size: How many they are.
            layer: What ``{layer}`` stands for.
            expert: What ``{expert}`` stands for.

        Yields:
            The pieces. Rows that pad belong to none.

        Raises:
            ConfigurationError: The parts cannot be cut into that many groups or ranks.
        """
        dim = self.dim or 0
        offset = 0
        for group, groups in self._groups(rank, size):
            for part in self.parts:
                for start, stop in self._blocks(part, group, groups):
                    index: list[int | slice] = [slice(None)] * len(part.shape)
                    index[dim] = slice(start, stop)
                    if part.experts:
                        index.insert(0, expert)
                    name = part.tensor.format(layer=layer, expert=expert)
                    yield Piece(name, tuple(index), offset, stop - start)
                    offset += stop - start

    def tensors(self, *, layer: int = 0, expert: int = 0) -> Iterator[tuple[str, tuple[int, ...]]]:
        """List the tensors, by name and whole shape."""
        for part in self.parts:
            shape = (part.experts, *part.shape) if part.experts else part.shape
            yield part.tensor.format(layer=layer, expert=expert), shape

    def _groups(self, rank: int, size: int) -> Iterator[tuple[int, int]]:
        """List the groups that a rank has, each with how many there are in all."""
        if self.dim is None:
            yield 0, 1
            return
        groups = self.groups or size
        if groups % size:
            raise ConfigurationError(
                f"{self.parts[0].tensor} has {groups} groups of rows, which {size} ranks cannot "
                "share evenly"
            )
        each = groups // size
        for group in range(rank * each, (rank + 1) * each):
            yield group, groups

    def _blocks(self, part: Part, group: int, groups: int) -> Iterator[tuple[int, int]]:
        dim = self.dim or 0
        first, last = part.rows or (0, part.shape[dim])
        rows = last - first
        if self.padded:
            each = -(-rows // groups)
            start = first + min(rows, group * each)
            stop = first + min(rows, (group + 1) * each)
            if start < stop:
                yield start, stop
            return
        blocks = groups * len(part.order)
        if rows % blocks:
            raise ConfigurationError(
                f"the {rows} rows of {part.tensor} cannot be cut into {blocks} equal blocks"
            )
        each = rows // blocks
        for block in part.order:
            start = first + (group * len(part.order) + block) * each
            yield start, start + each
