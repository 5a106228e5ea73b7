"""The rows of Hugging Face's linear modules in megatron's fused ones.

A column-parallel linear module of megatron fuses several projections: ``linear_qkv`` is q, k and
v, group by group; ``linear_fc1`` is gate, then up; a gated delta net's ``in_proj`` is q, k, v, z,
b and a. Each section of rows is sharded by itself over the tensor-parallel ranks, so that a rank
holds the gates of its ups.

Axes: O rows of the whole module, one for each output feature; o those of this rank.
"""

from typing import NamedTuple

import torch
from megatron.core.tensor_parallel.layers import ColumnParallelLinear
from megatron.core.transformer import TransformerConfig
from torch import Tensor

from art.errors import ConfigurationError


class Projection(NamedTuple):
    """One of Hugging Face's linear modules, as part of a fused one.

    Args:
        module: Its name, such as ``"model.layers.0.self_attn.q_proj"``.
        sections: Numbers of output rows, each sharded over the ranks by itself.
        adapted: True if it gets an adapter.
    """

    module: str
    sections: tuple[int, ...]
    adapted: bool

    @property
    def name(self) -> str:
        """The last part of its name, such as ``"q_proj"``."""
        return self.module.rpartition(".")[2]

    @property
    def rows(self) -> int:
        """Number of output rows on all ranks together."""
        return sum(self.sections)


class Fusion(NamedTuple):
    """The projections of a fused linear module, on all ranks together.

    Args:
        projections: In the order of their rows.
        groups: Number of groups of rows; each has rows of every projection in turn.
        unadapted_rows: Number of rows after those of the projections, which cannot be adapted.
    """

    projections: tuple[Projection, ...]
    groups: int = 1
    unadapted_rows: int = 0


def column_fusion(
    path: str,
    linear: ColumnParallelLinear,
    config: TransformerConfig,
    modules: dict[str, bool],
) -> Fusion:
    """List the projections that a column-parallel linear module fuses.

    Args:
        path: Its name in the model, such as ``"decoder.layers.0.mlp.linear_fc1"``.
        linear: The module.
        config: The model's config.
        modules: Hugging Face's modules that it fuses, in order; True if one is adapted.

    Returns:
        Its projections.

    Raises:
        ConfigurationError: The module is of a kind that is not known here.
    """
    kind = path.rpartition(".")[2]
    known = {"linear_qkv": _qkv, "linear_fc1": _gate_up, "in_proj": _gated_delta_net}
    if kind not in known:
        raise ConfigurationError(
            f"art cannot adapt {path}: it adapts the column-parallel modules {', '.join(known)}"
        )
    sections, groups = known[kind](linear, config, len(modules))
    projections = tuple(
        Projection(module, rows, adapted)
        for (module, adapted), rows in zip(modules.items(), sections, strict=True)
    )
    rest = linear.output_size - sum(projection.rows for projection in projections)
    return Fusion(projections, groups, rest)


def local_rows(whole_O: Tensor, sections: tuple[int, ...], rank: int, size: int) -> Tensor:
    """Take the rows that one rank holds.

    Args:
        whole_O: ``[O, ...]``.
        sections: Numbers of rows, O in sum; each is sharded by itself.
        rank: The rank.
        size: Number of ranks.

    Returns:
        ``[o, ...]``, where o is O / size.
    """
    return torch.cat([section.chunk(size)[rank] for section in whole_O.split(sections)])


def all_rows(parts_o: list[Tensor], sections: tuple[int, ...]) -> Tensor:
    """Assemble the rows of all ranks: the inverse of :func:`local_rows`.

    Args:
        parts_o: ``[o, ...]`` of each rank.
        sections: Numbers of rows, O in sum; each is sharded by itself.

    Returns:
        ``[O, ...]``.
    """
    local_sections = [rows // len(parts_o) for rows in sections]
    by_section = zip(*(part.split(local_sections) for part in parts_o), strict=True)
    return torch.cat([rows for section in by_section for rows in section])


def _qkv(
    linear: ColumnParallelLinear, config: TransformerConfig, modules: int
) -> tuple[list[tuple[int, ...]], int]:
    groups, head_dim = _known(config.num_query_groups), _known(config.kv_channels)
    # With an output gate, a group has its queries, then as many gates.
    query = config.num_attention_heads * head_dim * (2 if config.attention_output_gate else 1)
    return [(query,), (groups * head_dim,), (groups * head_dim,)], groups


def _gate_up(
    linear: ColumnParallelLinear, config: TransformerConfig, modules: int
) -> tuple[list[tuple[int, ...]], int]:
    half = linear.output_size // 2
    # Gate and up may have one adapter, as in transformers' fused experts.
    return [(half, half)] if modules == 1 else [(half,), (half,)], 1


def _gated_delta_net(
    linear: ColumnParallelLinear, config: TransformerConfig, modules: int
) -> tuple[list[tuple[int, ...]], int]:
    key = _known(config.linear_num_key_heads) * _known(config.linear_key_head_dim)
    value = _known(config.linear_num_value_heads) * _known(config.linear_value_head_dim)
    return [(key, key, value), (value,)], 1


def _known(number: int | None) -> int:
    # Megatron has set every number of a layer that it has built.
    assert number is not None
    return number
