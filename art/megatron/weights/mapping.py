"""Which parameters a model has, and which of them a rank holds."""

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
        name: Its name in a layer, or in the model; ``{expert}`` stands for the number that the
            expert has on its rank.
        layout: What it is made of.
        of_experts: Whether each routed expert has one. Those are shared out by expert and
            expert tensor parallelism.
        alternative: What it is made of in other checkpoints of the family.
    """

    name: str
    layout: Layout
    of_experts: bool = False
    alternative: Layout | None = None


@dataclass(frozen=True)
class WeightMapping:
    """The parameters of a family's model, and the Hugging Face tensors that they are made of.

    Args:
        embedding: Those of the first pipeline rank.
        layers: Those of each layer.
        output: Those of the last pipeline rank.
        tied_output: The output layer's, where its weight is the embedding's. Only a last pipeline
            rank that is not also the first has it.
        experts: How many routed experts a layer has.
        copies: Tensors that a checkpoint may hold, and what they then must equal.
        unused: Prefixes of tensors that a checkpoint may hold and the model has no use for.
    """

    embedding: tuple[Parameter, ...]
    layers: tuple[tuple[Parameter, ...], ...]
    output: tuple[Parameter, ...]
    tied_output: tuple[Parameter, ...] = ()
    experts: int = 0
    copies: tuple[tuple[str, str], ...] = ()
    unused: tuple[str, ...] = ()

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Name every tensor of a checkpoint, with its shape, in the order of the model."""
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
        """Take the layouts that a checkpoint has, where the family's checkpoints differ.

        Args:
            names: The checkpoint's tensors.

        Returns:
            This mapping, with the alternative layouts whose tensors are among them.
        """
        return replace(
            self,
            layers=tuple(
                tuple(_as_in(parameter, layer, names) for parameter in parameters)
                for layer, parameters in enumerate(self.layers)
            ),
        )

    def shards(self, place: "Place") -> Iterator["Shard"]:
        """List what a rank holds.

        Args:
            place: Where the rank is.

        Yields:
            Its shards, in the order of the model.
        """
        if place.first:
            yield from (_shard(parameter, parameter.name, place) for parameter in self.embedding)
        for position, layer in enumerate(place.layers):
            for parameter in self.layers[layer]:
                name = f"decoder.layers.{position}.{parameter.name}"
                if not parameter.of_experts:
                    yield _shard(parameter, name, place, layer)
                    continue
                for number, expert in enumerate(place.experts):
                    yield _shard(parameter, name.format(expert=number), place, layer, expert)
        if place.last:
            output = self.output if place.first else (*self.output, *self.tied_output)
            yield from (_shard(parameter, parameter.name, place) for parameter in output)


@dataclass(frozen=True)
class Place:
    """What a rank holds of a model.

    Args:
        tensor: Its rank in tensor parallelism, and how many ranks that has.
        expert_tensor: The same for the parameters of routed experts.
        experts: The routed experts that it holds.
        layers: The layers that it holds, counted from 0.
        first: Whether it is at the start of the pipeline.
        last: Whether it is at the end.
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
        dim: The axis along which its pieces lie.
        pieces: What it is made of. What no piece covers is zero.
    """

    name: str
    dim: int
    pieces: tuple[Piece, ...]


def place_of(model: GPTModel) -> Place:
    """Say what this rank holds of a model, from the model and ``parallel_state``.

    Args:
        model: This rank's part of the model.

    Returns:
        Its place.
    """
    config = model.config
    experts = (config.num_moe_experts or 0) // config.expert_model_parallel_size
    first = parallel_state.get_expert_model_parallel_rank() * experts
    return Place(
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


def _shard(parameter: Parameter, name: str, place: Place, layer: int = 0, expert: int = 0) -> Shard:
    rank, size = place.expert_tensor if parameter.of_experts else place.tensor
    pieces = parameter.layout.pieces(rank, size, layer=layer, expert=expert)
    return Shard(name, parameter.layout.dim or 0, tuple(pieces))
