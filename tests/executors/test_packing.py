"""Trees of tokens against the definition: each token sees its own sequence, and nothing else."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from art.executors.packing import one_row_each, pack, passes
from art.executors.types import IntArray

# Few different tokens, so that prefixes are shared often, and whole sequences repeat.
SEQUENCES = st.lists(
    st.lists(st.integers(0, 2), min_size=1, max_size=12).map(lambda x: np.array(x, np.int64)),
    min_size=1,
    max_size=8,
)
CPU = torch.device("cpu")


@given(SEQUENCES, st.integers(1, 40), st.sampled_from([1.0, 10.0, 1e6]))
def test_every_token_sees_exactly_its_own_sequence(
    sequences: list[IntArray], max_tokens: int, tokens_per_attention: float
) -> None:
    rows = pack(sequences, max_tokens=max_tokens, tokens_per_attention=tokens_per_attention)
    planned = passes(rows, max_tokens=max_tokens, device=CPU)
    seen = []
    for step in planned:
        batch, length = step.input_ids.shape
        mask = step.mask
        if mask is None:
            mask = torch.ones(length, length, dtype=torch.bool).tril().expand(batch, 1, -1, -1)
        positions = step.position_ids
        if positions is None:
            positions = torch.arange(length).expand(batch, -1)
        for index, path in step.paths:
            seen.append(index)
            row, nodes = int(path[0]) // length, path % length
            assert step.input_ids[row, nodes].tolist() == sequences[index].tolist()
            assert positions[row, nodes].tolist() == list(range(len(path)))
            for t, node in enumerate(nodes):
                attended = mask[row, 0, node].nonzero().squeeze(1).tolist()
                assert attended == nodes[: t + 1].tolist()
    assert sorted(seen) == list(range(len(sequences)))


@given(SEQUENCES, st.integers(1, 40))
def test_passes_are_bounded_but_for_a_single_long_sequence(
    sequences: list[IntArray], max_tokens: int
) -> None:
    for step in passes(
        pack(sequences, max_tokens=max_tokens, tokens_per_attention=1e6),
        max_tokens=max_tokens,
        device=CPU,
    ):
        assert step.input_ids.numel() <= max_tokens or len(step.paths) == 1


def test_a_shared_prompt_is_held_once() -> None:
    prompt = np.arange(100, dtype=np.int64)
    sequences = [np.append(prompt, answer) for answer in (7, 8, 9)]
    (row,) = pack(sequences, max_tokens=2048, tokens_per_attention=3000.0)
    assert len(row.tokens) == 103


def test_unrelated_sequences_get_rows_of_their_own() -> None:
    sequences = [np.full(50, token, np.int64) for token in range(4)]
    assert len(pack(sequences, max_tokens=2048, tokens_per_attention=3000.0)) == 4


def test_one_row_each_needs_no_mask() -> None:
    sequences = [np.zeros(3, np.int64), np.zeros(3, np.int64)]
    (step,) = passes(one_row_each(sequences), max_tokens=100, device=CPU)
    assert step.mask is None
    assert step.input_ids.shape == (2, 3)
