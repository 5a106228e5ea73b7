"""The layout of a megatron parameter in Hugging Face tensors, as data that works both ways.

A parameter is the concatenation of parts, each a range of rows of a tensor. If megatron interleaves
the parts, each is cut into groups: the parameter is the first group of every part, then the second
of every part, and so on. Each tensor-parallel rank has a whole number of groups. One rule covers
all cases:

=================  =========================================  ===========================
parameter          parts                                      groups
=================  =========================================  ===========================
``linear_proj``    ``o_proj``, cut along its columns           one per rank
``linear_fc1``     ``gate_proj``, ``up_proj``                  one per rank
``linear_qkv``     ``q_proj``, ``k_proj``, ``v_proj``          one per key-value head
=================  =========================================  ===========================

Shapes are those of the checkpoint, one number for each axis. Rows are counted along the layout's
``dim``, an axis of the parameter; a tensor that Hugging Face keeps transposed has them along its
other axis.
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
        shape: The tensor's shape, without the axis of experts if they are stacked.
        rows: The range of rows; ``None`` is all.
        order: The order of the blocks into which each group of rows is cut, one entry per block.
        experts: Number of experts that are stacked along an axis before the others; 0 if they are
            not stacked.
        transposed: True if the tensor is a matrix ``[I, O]`` (input, output features), which
            megatron keeps as ``[O, I]``.
    """

    tensor: str
    shape: tuple[int, ...]
    rows: range | None = None
    order: tuple[int, ...] = (0,)
    experts: int = 0
    transposed: bool = False


# An index or a range for each axis of a tensor.
Selection = tuple[int | range, ...]


class Piece(NamedTuple):
    """A part of a tensor, and its position in a rank's shard of a parameter.

    Args:
        tensor: The tensor's name.
        selection: The part of the tensor.
        offset: Its start in the shard, along the layout's ``dim``.
        length: Its length there.
        transposed: True if it is transposed in the shard.
    """

    tensor: str
    selection: Selection
    offset: int
    length: int
    transposed: bool = False


def index_of(selection: Selection) -> tuple[int | slice, ...]:
    """Convert a selection to an index of a tensor."""
    return tuple(
        part if isinstance(part, int) else slice(part.start, part.stop, part.step)
        for part in selection
    )


@dataclass(frozen=True)
class Layout:
    """The parts of a parameter, and its sharding over ranks.

    Args:
        parts: The parts, in the order of the parameter.
        dim: The axis along which the parts are joined and sharded; ``None`` for one part that
            every rank holds whole.
        groups: Number of groups into which each part is cut; ``None`` is one for each rank.
        padded: True to round the ranks' shards up and fill the last ones with rows of zeros.
    """

    parts: tuple[Part, ...]
    dim: int | None = 0
    groups: int | None = None
    padded: bool = False

    def pieces(self, rank: int, size: int, *, layer: int = 0, expert: int = 0) -> Iterator[Piece]:
        """List the pieces of one rank's shard, in the order of the shard.

        Args:
            rank: The rank in the group over which the parameter is sharded.
            size: The size of the group.
            layer: The number for ``{layer}``.
            expert: The number for ``{expert}``.

        Yields:
            The pieces. Rows of padding belong to none.

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
        """List the numbers of a rank's groups, each with the number of all groups."""
        if self.dim is None:
            yield 0, 1
            return
        groups = self.groups or size
        if groups % size:
            raise ConfigurationError(
                f"{self.parts[0].tensor} has {groups} groups of rows, which cannot be sharded "
                f"evenly over {size} ranks"
            )
        each = groups // size
        for group in range(rank * each, (rank + 1) * each):
            yield group, groups

    def _axis(self, part: Part) -> int:
        """Get the axis of a part's tensor along which its rows are counted."""
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
