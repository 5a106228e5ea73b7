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

Rows and axes are megatron's. A tensor that Hugging Face keeps transposed is turned on its way.
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
        rows: Which rows; ``None`` is all. They are counted along the layout's ``dim``.
        order: Each group of rows is cut into this many blocks, taken in this order.
        experts: How many experts are stacked along an axis before the others; 0 is not stacked.
        transposed: Whether the tensor is a matrix ``[in, out]``, where megatron has ``[out, in]``.
    """

    tensor: str
    shape: tuple[int, ...]
    rows: range | None = None
    order: tuple[int, ...] = (0,)
    experts: int = 0
    transposed: bool = False


# What is taken along each axis of a tensor.
Selection = tuple[int | range, ...]


class Piece(NamedTuple):
    """A range of a tensor, and where it lies in a rank's shard of a parameter.

    Args:
        tensor: The tensor's name.
        selection: What to take of it.
        offset: Where it starts in the shard, along the layout's ``dim``.
        length: How long it is there.
        transposed: Whether what is taken lies in the shard transposed.
    """

    tensor: str
    selection: Selection
    offset: int
    length: int
    transposed: bool = False


def index_of(selection: Selection) -> tuple[int | slice, ...]:
    """Turn a selection into an index of a tensor."""
    return tuple(
        part if isinstance(part, int) else slice(part.start, part.stop, part.step)
        for part in selection
    )


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
        offset = 0
        for group, groups in self._groups(rank, size):
            for part in self.parts:
                for rows in self._blocks(part, group, groups):
                    selection: list[int | range] = [range(length) for length in part.shape]
                    selection[self._axis(part)] = rows
                    if part.experts:
                        selection.insert(0, expert)
                    name = part.tensor.format(layer=layer, expert=expert)
                    yield Piece(name, tuple(selection), offset, len(rows), part.transposed)
                    offset += len(rows)

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

    def _axis(self, part: Part) -> int:
        """Say along which axis of a part's tensor its rows lie."""
        dim = self.dim or 0
        return 1 - dim if part.transposed else dim

    def _blocks(self, part: Part, group: int, groups: int) -> Iterator[range]:
        rows = part.rows or range(part.shape[self._axis(part)])
        if self.padded:
            each = -(-len(rows) // groups)
            block = rows[group * each : (group + 1) * each]
            if block:
                yield block
            return
        blocks = groups * len(part.order)
        if len(rows) % blocks:
            raise ConfigurationError(
                f"the {len(rows)} rows of {part.tensor} cannot be cut into {blocks} equal blocks"
            )
        each = len(rows) // blocks
        for number in part.order:
            first = (group * len(part.order) + number) * each
            yield rows[first : first + each]
