"""Sharding of a model's tensors over any number of ranks, compared with slow references."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from art.errors import ConfigurationError
from art.megatron.weights.layout import Layout, Part, index_of

from .tiny_models import CASES, hf_config

if TYPE_CHECKING:
    from art.megatron.weights.mapping import RankSlice, WeightMapping


def mapping_of(name: str) -> "WeightMapping":
    handler = CASES[name].handler
    return handler.weight_mapping(handler.read_config(hf_config(name)))


def slices(
    mapping: "WeightMapping", tensor: int, pipeline: int, expert: int
) -> Iterator["RankSlice"]:
    """Yield the part of each rank of a mesh without expert tensor parallelism."""
    from art.megatron.weights.mapping import RankSlice

    layers, experts = len(mapping.layers) // pipeline, mapping.experts // expert
    for stage in range(pipeline):
        for rank in range(tensor):
            for group in range(expert):
                yield RankSlice(
                    tensor=(rank, tensor),
                    expert_tensor=(0, 1),
                    experts=tuple(range(group * experts, (group + 1) * experts)),
                    layers=tuple(range(stage * layers, (stage + 1) * layers)),
                    first=stage == 0,
                    last=stage == pipeline - 1,
                )


@pytest.mark.parametrize("name", CASES)
@given(
    tensor=st.sampled_from([1, 2]),
    pipeline=st.sampled_from([1, 2]),
    expert=st.sampled_from([1, 2, 3, 6]),
)
def test_ranks_hold_every_number_of_every_tensor(
    name: str, tensor: int, pipeline: int, expert: int
) -> None:
    mapping = mapping_of(name)
    if not mapping.experts:
        expert = 1
    shapes = mapping.tensors()
    held = {tensor: torch.zeros(shape, dtype=torch.int) for tensor, shape in shapes.items()}
    for rank_slice in slices(mapping, tensor, pipeline, expert):
        of_slice = {tensor: torch.zeros(shape, dtype=torch.int) for tensor, shape in shapes.items()}
        for shard in mapping.shards(rank_slice):
            ends = 0
            for piece in shard.pieces:
                assert piece.offset == ends, "pieces lie one behind the other"
                ends += piece.length
                of_slice[piece.tensor][index_of(piece.selection)] += 1
        for tensor_name, count in of_slice.items():
            assert count.max() <= 1, "no rank holds a number twice"
            held[tensor_name] += count
    assert all((count > 0).all() for count in held.values())


def fill(
    layout: Layout, rank: int, size: int, tensors: dict[str, Tensor], shape: tuple[int, ...]
) -> Tensor:
    shard = torch.zeros(shape)
    for piece in layout.pieces(rank, size):
        target = shard.narrow(layout.dim or 0, piece.offset, piece.length)
        part = tensors[piece.tensor][index_of(piece.selection)]
        target.copy_(part.T if piece.transposed else part)
    return shard


def layout_of(name: str, parameter: str) -> Layout:
    return next(p.layout for layer in mapping_of(name).layers for p in layer if p.name == parameter)


QKV = "self_attention.linear_qkv.weight"


@pytest.mark.parametrize("size", [1, 2])
def test_linear_qkv_is_megatrons_interleaving(size: int) -> None:
    """[groups, (heads / groups + 2) * head_dim]: megatron/core/transformer/attention.py."""
    layer = "model.layers.0.self_attn."
    q, k, v = torch.randn(84, 60), torch.randn(28, 60), torch.randn(28, 60)
    tensors = {f"{layer}{n}_proj.weight": t for n, t in zip("qkv", (q, k, v), strict=True)}
    grouped = [t.reshape(2, -1, 14, 60) for t in (q, k, v)]
    expected = torch.cat(grouped, dim=1).reshape(-1, 60).chunk(size)
    for rank in range(size):
        shard = fill(layout_of("qwen3_dense", QKV), rank, size, tensors, (140 // size, 60))
        assert torch.equal(shard, expected[rank])


@pytest.mark.parametrize("size", [1, 2])
def test_gates_of_attention_follow_their_groups_queries(size: int) -> None:
    layer = "model.layers.2.self_attn."
    q, k, v = torch.randn(6 * 2 * 20, 60), torch.randn(40, 60), torch.randn(40, 60)
    layout = next(p.layout for p in mapping_of("qwen3_5_dense").layers[2] if p.name == QKV)
    tensors = {f"{layer}{n}_proj.weight": t for n, t in zip("qkv", (q, k, v), strict=True)}
    # Of each head a query and its gate; of each group the queries, the gates, a key, a value.
    query, gate = q.reshape(2, 3, 2, 20, 60).unbind(2)
    key, value = k.reshape(2, 1, 20, 60), v.reshape(2, 1, 20, 60)
    expected = torch.cat([query, gate, key, value], dim=1).reshape(-1, 60).chunk(size)
    for rank in range(size):
        shard = torch.zeros(320 // size, 60)
        for piece in layout.pieces(rank, size, layer=2):
            part = tensors[piece.tensor][index_of(piece.selection)]
            shard[piece.offset :][: piece.length] = part
        assert torch.equal(shard, expected[rank])


@pytest.mark.parametrize("size", [1, 2])
def test_the_inputs_of_a_gated_delta_net_are_sharded_one_by_one(size: int) -> None:
    """Query, key, value, gate, beta, alpha: megatron/core/ssm/gated_delta_net.py."""
    layer = "model.layers.0.linear_attn."
    sizes = {"qkv": 14 + 14 + 54, "z": 54, "b": 6, "a": 6}
    tensors = {f"{layer}in_proj_{n}.weight": torch.randn(rows, 60) for n, rows in sizes.items()}
    layout = layout_of("qwen3_5_dense", "self_attention.in_proj.weight")
    whole = torch.cat(list(tensors.values()))
    parts = [part.chunk(size) for part in whole.split([14, 14, 54, 54, 6, 6])]
    for rank in range(size):
        shard = fill(layout, rank, size, tensors, (len(whole) // size, 60))
        assert torch.equal(shard, torch.cat([part[rank] for part in parts]))


@given(vocabulary=st.integers(1, 40), size=st.integers(1, 6))
def test_a_vocabulary_is_padded_at_its_end(vocabulary: int, size: int) -> None:
    from art.megatron.models.build import padded_vocab_size

    table = torch.randn(vocabulary, 3)
    rows = padded_vocab_size(vocabulary, size) // size
    layout = Layout((Part("table", (vocabulary, 3)),), padded=True)
    shards = [fill(layout, rank, size, {"table": table}, (rows, 3)) for rank in range(size)]
    padded = torch.cat(shards)
    assert len(padded) % size == 0
    assert len(padded) - vocabulary < size
    assert torch.equal(padded[:vocabulary], table)
    assert not padded[vocabulary:].any()


@given(size=st.integers(1, 4), each=st.integers(1, 4), hidden=st.integers(1, 5))
def test_gate_and_up_may_be_interleaved_and_transposed(size: int, each: int, hidden: int) -> None:
    """As GPT-OSS keeps them: ``[I, O]``, and every other column is a gate's."""
    intermediate = size * each
    gate_up, down = torch.randn(hidden, 2 * intermediate), torch.randn(intermediate, hidden)
    columns = [range(half, 2 * intermediate, 2) for half in (0, 1)]
    fc1 = Layout(tuple(Part("gate_up", gate_up.shape, rows=r, transposed=True) for r in columns))
    fc2 = Layout((Part("down", down.shape, transposed=True),), dim=1)
    gates, ups = gate_up.T[0::2].chunk(size), gate_up.T[1::2].chunk(size)
    tensors = {"gate_up": gate_up, "down": down}
    for rank in range(size):
        shard = fill(fc1, rank, size, tensors, (2 * each, hidden))
        assert torch.equal(shard, torch.cat([gates[rank], ups[rank]]))
        shard = fill(fc2, rank, size, tensors, (hidden, each))
        assert torch.equal(shard, down.T.chunk(size, dim=1)[rank])


def test_groups_that_cannot_be_sharded_evenly_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"2 groups of rows, which .* over 3 ranks"):
        list(layout_of("qwen3_dense", QKV).pieces(0, 3))
    with pytest.raises(ConfigurationError, match=r"52 rows of .*gate_proj.* 3 equal blocks"):
        list(layout_of("qwen3_dense", "mlp.linear_fc1.weight").pieces(0, 3))
