"""How the rows of Hugging Face's linear modules lie in megatron's fused ones.

A column-parallel linear module of megatron holds several projections: ``linear_qkv`` is q, k and
v, group by group; ``linear_fc1`` is gate, then up; a gated delta net's ``in_proj`` is q, k, v, z,
b and a. Tensor-parallel ranks share out each section of rows by itself, so that a rank's gate
belongs to its up.
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
        sections: Numbers of output rows, each shared out over the ranks by itself.
        adapted: Whether it gets an adapter.
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
        """Output rows on all ranks together."""
        return sum(self.sections)


class Fusion(NamedTuple):
    """The projections of a fused linear module, on all ranks together.

    Args:
        projections: In the order of their rows.
        groups: The rows are as many groups, each with the rows of every projection in turn.
        unadapted_rows: Rows after those of the projections, which no adapter can have.
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
    """Say what a column-parallel linear module consists of.

    Args:
        path: Its name in the model, such as ``"decoder.layers.0.mlp.linear_fc1"``.
        linear: The module.
        config: The model's config.
        modules: Hugging Face's modules that it holds, in order, and whether each is adapted.

    Returns:
        Its projections.

    Raises:
        ConfigurationError: The module is not one of those that are known here.
    """
    kind = path.rpartition(".")[2]
    known = {"linear_qkv": _qkv, "linear_fc1": _gate_up, "in_proj": _gated_delta_net}
    if kind not in known:
        raise ConfigurationError(f"art cannot adapt {path}: it is none of {', '.join(known)}")
    sections, groups = known[kind](linear, config, len(modules))
    projections = tuple(
        Projection(module, rows, adapted)
        for (module, adapted), rows in zip(modules.items(), sections, strict=True)
    )
    rest = linear.output_size - sum(projection.rows for projection in projections)
    return Fusion(projections, groups, rest)


def local_rows(rows: Tensor, sections: tuple[int, ...], rank: int, size: int) -> Tensor:
    """Take the rows that one rank holds.

    Args:
        rows: ``[sum(sections), ...]``.
        sections: Each is shared out by itself.
        rank: The rank.
        size: How many ranks there are.

    Returns:
        ``[sum(sections) / size, ...]``.
    """
    return torch.cat([section.chunk(size)[rank] for section in rows.split(sections)])


def all_rows(parts: list[Tensor], sections: tuple[int, ...]) -> Tensor:
    """Put the rows of all ranks together: the inverse of :func:`local_rows`.

    Args:
        parts: ``[sum(sections) / size, ...]`` of each rank.
        sections: Each is shared out by itself.

    Returns:
        ``[sum(sections), ...]``.
    """
    local = [rows // len(parts) for rows in sections]
    by_section = zip(*(part.split(local) for part in parts), strict=True)
    return torch.cat([rows for section in by_section for rows in section])


def _qkv(
    linear: ColumnParallelLinear, config: TransformerConfig, modules: int
) -> tuple[list[tuple[int, ...]], int]:
    groups, head_dim = _known(config.num_query_groups), _known(config.kv_channels)
    # A gated query's group is its queries, then as many gates.
    query = config.num_attention_heads * head_dim * (2 if config.attention_output_gate else 1)
    return [(query,), (groups * head_dim,), (groups * head_dim,)], groups


def _gate_up(
    linear: ColumnParallelLinear, config: TransformerConfig, modules: int
) -> tuple[list[tuple[int, ...]], int]:
    half = linear.output_size // 2
    # One adapter may be that of gate and up together, as transformers keeps experts.
    return [(half, half)] if modules == 1 else [(half,), (half,)], 1


def _gated_delta_net(
    linear: ColumnParallelLinear, config: TransformerConfig, modules: int
) -> tuple[list[tuple[int, ...]], int]:
    key = _known(config.linear_num_key_heads) * _known(config.linear_key_head_dim)
    value = _known(config.linear_num_value_heads) * _known(config.linear_value_head_dim)
    return [(key, key, value), (value,)], 1


def _known(number: int | None) -> int:
    # Megatron leaves no number of a layer that it has built unset.
    assert number is not None
    return number
