"""The parameters of a model as layouts of Hugging Face tensors, and the shards of each rank."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel

from .layout import Layout, Piece


@dataclass(frozen=True)
class Parameter:
    """One parameter of megatron's, or of each of its experts.

    Args:
        name: Its name in a layer, or in the model; ``{expert}`` stands for the expert's number on
            its rank.
        layout: Its layout.
        of_experts: True if each routed expert has one. Those are sharded by expert parallelism and
            expert tensor parallelism.
        alternative: Its layout in other checkpoints of the family.
    """

    name: str
    layout: Layout
    of_experts: bool = False
    alternative: Layout | None = None


@dataclass(frozen=True)
class WeightMapping:
    """The parameters of a family's model, and the Hugging Face tensors that they are made of.

    Args:
        embedding: The parameters of the first pipeline rank.
        layers: The parameters of each layer.
        output: The parameters of the last pipeline rank.
        tied_output: The output layer's parameter if it shares its weight with the embedding. Only
            a last pipeline rank that is not also the first has it.
        experts: Number of routed experts in a layer.
        copies: Pairs of an optional tensor of a checkpoint and the tensor that it must equal.
        unused: Prefixes of the optional tensors of a checkpoint that the model does not use.
    """

    embedding: tuple[Parameter, ...]
    layers: tuple[tuple[Parameter, ...], ...]
    output: tuple[Parameter, ...]
    tied_output: tuple[Parameter, ...] = ()
    experts: int = 0
    copies: tuple[tuple[str, str], ...] = ()
    unused: tuple[str, ...] = ()

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """List every tensor of a checkpoint with its shape, in the order of the model."""
        tensors: dict[str, tuple[int, ...]] = {}
        for parameter in self.embedding:
            tensors.update(parameter.layout.tensors())
        for layer, parameters in enumerate(self.layers):
            for parameter in parameters:
                for expert in range(self.experts if parameter.of_experts else 1):
                    tensors.update(parameter.layout.tensors(layer=layer, expert=expert))
        for parameter in self.output:
            tensors.update(parameter.layout.tensors())
        return tensors

    def as_in(self, names: Collection[str]) -> "WeightMapping":
        """Choose the layouts of a checkpoint, where the family's checkpoints differ.

        Args:
            names: The names of the checkpoint's tensors.

        Returns:
            This mapping, with each alternative layout whose tensors the checkpoint has.
        """
        return replace(
            self,
            layers=tuple(
                tuple(_as_in(parameter, layer, names) for parameter in parameters)
                for layer, parameters in enumerate(self.layers)
            ),
        )

    def shards(self, rank_slice: "RankSlice") -> Iterator["Shard"]:
        """List the shards that a rank holds.

        Args:
            rank_slice: The rank's part of the model.

        Yields:
            Its shards, in the order of the model.
        """
        if rank_slice.first:
            yield from (
                _shard(parameter, parameter.name, rank_slice) for parameter in self.embedding
            )
        for position, layer in enumerate(rank_slice.layers):
            for parameter in self.layers[layer]:
                name = f"decoder.layers.{position}.{parameter.name}"
                if not parameter.of_experts:
                    yield _shard(parameter, name, rank_slice, layer)
                    continue
                for number, expert in enumerate(rank_slice.experts):
                    yield _shard(parameter, name.format(expert=number), rank_slice, layer, expert)
        if rank_slice.last:
            output = self.output if rank_slice.first else (*self.output, *self.tied_output)
            yield from (_shard(parameter, parameter.name, rank_slice) for parameter in output)


@dataclass(frozen=True)
class RankSlice:
    """The part of a model that a rank holds.

    Args:
        tensor: Its rank in the tensor-parallel group, and the size of the group.
        expert_tensor: The same for the parameters of routed experts.
        experts: The routed experts that it holds.
        layers: The layers that it holds, counted from 0.
        first: True if it is the first in the pipeline.
        last: True if it is the last in the pipeline.
    """

    tensor: tuple[int, int]
    expert_tensor: tuple[int, int]
    experts: tuple[int, ...]
    layers: tuple[int, ...]
    first: bool
    last: bool


class Shard(NamedTuple):
    """A parameter of one rank's model.

    Args:
        name: Its name there.
        dim: The axis along which its pieces are joined.
        pieces: Its pieces. Rows that no piece covers are zero.
    """

    name: str
    dim: int
    pieces: tuple[Piece, ...]


def rank_slice_of(model: GPTModel) -> RankSlice:
    """Describe the part of a model that this rank holds, by the model and ``parallel_state``.

    Args:
        model: This rank's part of the model.

    Returns:
        Its description.
    """
    config = model.config
    experts = (config.num_moe_experts or 0) // config.expert_model_parallel_size
    first = parallel_state.get_expert_model_parallel_rank() * experts
    return RankSlice(
        tensor=(
            parallel_state.get_tensor_model_parallel_rank(),
            parallel_state.get_tensor_model_parallel_world_size(),
        ),
        expert_tensor=(
            parallel_state.get_expert_tensor_parallel_rank(),
            parallel_state.get_expert_tensor_parallel_world_size(),
        ),
        experts=tuple(range(first, first + experts)),
        # Megatron counts layers from 1, over all pipeline ranks.
        layers=tuple(layer.layer_number - 1 for layer in model.decoder.layers),
        first=model.pre_process,
        last=model.post_process,
    )


def _as_in(parameter: Parameter, layer: int, names: Collection[str]) -> Parameter:
    if parameter.alternative is None:
        return parameter
    if not all(name in names for name, _ in parameter.alternative.tensors(layer=layer)):
        return parameter
    return replace(parameter, layout=parameter.alternative, alternative=parameter.layout)


def _shard(
    parameter: Parameter, name: str, rank_slice: RankSlice, layer: int = 0, expert: int = 0
) -> Shard:
    rank, size = rank_slice.expert_tensor if parameter.of_experts else rank_slice.tensor
    pieces = parameter.layout.pieces(rank, size, layer=layer, expert=expert)
    return Shard(name, parameter.layout.dim or 0, tuple(pieces))
