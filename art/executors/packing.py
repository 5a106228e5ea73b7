"""Sequences that share a prefix, packed into rows that hold each shared token once.

A row is a tree of tokens in depth-first order. Token ``i`` attends to token ``j`` when ``j`` is
``i`` or above it in the tree, that is when ``j <= i < subtree_end[j]``. Its position is its depth.
So every token sees exactly what it would see in its own sequence, and the computation is the same.

Shapes: N tokens of a row, B rows of a pass, T tokens of a sequence.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from art.executors.types import IntArray

# Rows of one pass are padded to the longest: none may be shorter than this part of it.
_SHORTEST_IN_PASS = 0.75


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A tree of tokens.

    Attributes:
        tokens: int64 ``[N]``, depth first.
        positions: int64 ``[N]``, the depth of each token.
        subtree_end: int64 ``[N]``, one past the last token below each.
        paths: For each sequence in the row, its index among those that were packed and the
            indices of its tokens in the row, int64 ``[T]``.
    """

    tokens: IntArray
    positions: IntArray
    subtree_end: IntArray
    paths: list[tuple[int, IntArray]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """Rows that are computed together, padded on the right.

    Attributes:
        input_ids: int64 ``[B, N]``.
        position_ids: int64 ``[B, N]``; ``None`` where every row is one plain sequence.
        mask: bool ``[B, 1, N, N]``, True where the first token attends to the second; ``None``
            where every row is one plain sequence, for which causal attention is the same.
        paths: As :attr:`Row.paths`, the indices counting over all ``B * N`` tokens.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor | None
    mask: torch.Tensor | None
    paths: list[tuple[int, IntArray]]


def pack(
    sequences: Sequence[IntArray], *, max_tokens: int, tokens_per_attention: float
) -> list[Row]:
    """Pack sequences into trees wherever that saves computation.

    A sequence joins the row before it when that costs less than a row of its own. A row of N
    tokens costs ``N + N^2 / tokens_per_attention``.

    Args:
        sequences: int64 arrays ``[T]``, none empty.
        max_tokens: Most tokens in a row; only a longer single sequence exceeds it.
        tokens_per_attention: Over how many tokens attention costs a token as much as the rest of
            the model does.

    Returns:
        Rows that together hold every sequence once.
    """
    # 1. Sort, so that sequences that share a prefix become neighbours. As big-endian bytes, arrays
    # sort by their tokens.
    order = sorted(range(len(sequences)), key=lambda i: sequences[i].astype(">i8").tobytes())
    # 2. Add each to the row before it, where what they share saves more than what attention over
    # the longer row costs; or open a row.
    rows: list[_RowBuilder] = []
    for index in order:
        tokens = sequences[index]
        if rows:
            row = rows[-1]
            size, new = len(row.tokens), len(tokens) - row.shared_with(tokens)
            joined = new + (2 * size * new + new**2) / tokens_per_attention
            alone = len(tokens) + len(tokens) ** 2 / tokens_per_attention
            if size + new <= max_tokens and joined < alone:
                row.add(index, tokens)
                continue
        rows.append(_RowBuilder())
        rows[-1].add(index, tokens)
    return [row.build() for row in rows]


def one_row_each(sequences: Sequence[IntArray]) -> list[Row]:
    """Make a row of each sequence, for models that cannot take a tree mask."""
    rows = []
    for index, tokens in enumerate(sequences):
        row = _RowBuilder()
        row.add(index, tokens)
        rows.append(row.build())
    return rows


def passes(rows: Sequence[Row], *, max_tokens: int, device: torch.device) -> list[Pass]:
    """Group rows of similar length into passes.

    Args:
        rows: What to compute.
        max_tokens: Most tokens in a pass, padding included; a longer single row runs alone.
        device: Where the tensors go.

    Returns:
        Passes that together hold every row once, the longest first.
    """
    groups: list[list[Row]] = []
    for row in sorted(rows, key=lambda row: -len(row.tokens)):
        if groups:
            longest = len(groups[-1][0].tokens)
            fits = (len(groups[-1]) + 1) * longest <= max_tokens
            if fits and len(row.tokens) >= _SHORTEST_IN_PASS * longest:
                groups[-1].append(row)
                continue
        groups.append([row])
    return [_pad(group, device) for group in groups]


class _RowBuilder:
    """A row that grows by sequences in sorted order."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self._positions: list[int] = []
        self._subtree_end: list[int] = []
        self._paths: list[tuple[int, IntArray]] = []
        self._last = np.empty(0, np.int64)
        self._last_path = np.empty(0, np.int64)

    def shared_with(self, tokens: IntArray) -> int:
        """Count the tokens at the start that are those of the sequence that was added last."""
        length = min(len(tokens), len(self._last))
        differs = np.flatnonzero(tokens[:length] != self._last[:length])
        return int(differs[0]) if len(differs) else length

    def add(self, index: int, tokens: IntArray) -> None:
        shared, start = self.shared_with(tokens), len(self.tokens)
        # Sequences come sorted, so the branch that this one leaves never grows again: its subtrees
        # end here.
        for node in self._last_path[shared:]:
            self._subtree_end[node] = start
        new = len(tokens) - shared
        self.tokens.extend(tokens[shared:].tolist())
        self._positions.extend(range(shared, len(tokens)))
        self._subtree_end.extend([-1] * new)
        path = np.concatenate([self._last_path[:shared], np.arange(start, start + new)])
        self._paths.append((index, path.astype(np.int64)))
        self._last, self._last_path = tokens, path

    def build(self) -> Row:
        for node in self._last_path:
            self._subtree_end[node] = len(self.tokens)
        return Row(
            tokens=np.array(self.tokens, np.int64),
            positions=np.array(self._positions, np.int64),
            subtree_end=np.array(self._subtree_end, np.int64),
            paths=self._paths,
        )


def _pad(rows: list[Row], device: torch.device) -> Pass:
    length = max(len(row.tokens) for row in rows)
    shape = (len(rows), length)
    input_ids_BN, positions_BN = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    # Padding attends to itself alone: a row of all False would be NaN under softmax.
    subtree_end_BN = np.tile(np.arange(1, length + 1), (len(rows), 1))
    for b, row in enumerate(rows):
        n = len(row.tokens)
        input_ids_BN[b, :n], positions_BN[b, :n] = row.tokens, row.positions
        subtree_end_BN[b, :n] = row.subtree_end
    # The paths count over all tokens of the pass, as its flattened hidden states do.
    paths = [(i, path + b * length) for b, row in enumerate(rows) for i, path in row.paths]
    ids_BN = torch.from_numpy(input_ids_BN).to(device)
    if all(len(row.paths) == 1 for row in rows):
        return Pass(input_ids=ids_BN, position_ids=None, mask=None, paths=paths)
    # Token i sees token j where j <= i < subtree_end[j]: j is i, or above it in the tree.
    index_N = torch.arange(length, device=device)
    end_BN = torch.from_numpy(subtree_end_BN).to(device)
    at_or_after_1NN = index_N[None, :, None] >= index_N[None, None, :]
    mask_BNN = at_or_after_1NN & (index_N[None, :, None] < end_BN[:, None, :])
    return Pass(
        input_ids=ids_BN,
        position_ids=torch.from_numpy(positions_BN).to(device),
        mask=mask_BNN[:, None],
        paths=paths,
    )
