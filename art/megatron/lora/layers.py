"""Adapters of megatron's parallel linear modules.

An adapter adds ``alpha / rank * B A x`` to its linear module's output. Of a column-parallel
module each tensor-parallel rank holds all of A and its rows of B; of a row-parallel one, its
columns of A and all of B. What passes between ranks is ``A x``, ``rank`` numbers a token.
"""

from abc import abstractmethod
from typing import ClassVar, Literal, NamedTuple

import torch
from megatron.core.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear
from megatron.core.tensor_parallel.mappings import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
    reduce_from_tensor_model_parallel_region,
    reduce_scatter_to_sequence_parallel_region,
)
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.nn.functional import linear as multiply

from .config import LoraConfig
from .initial import initial_a
from .projections import Fusion, all_rows, local_rows

Matrix = Literal["lora_A", "lora_B"]


class LoraShapes(NamedTuple):
    """The whole matrices of one Hugging Face module: A ``[rank, in]``, B ``[out, rank]``."""

    lora_A: tuple[int, int]
    lora_B: tuple[int, int]


class LoraPair(nn.Module):
    """A and B of one Hugging Face module, as far as this rank holds them.

    Both are float32, as PEFT keeps them: small steps would vanish in bfloat16. They are
    multiplied in the dtype of the activations.

    Args:
        lora_a: ``[rank, in]``; of a row-parallel module, this rank's columns.
        out_rows: Rows of B; of a column-parallel module, this rank's. B starts at zero.
    """

    def __init__(self, lora_a: Tensor, out_rows: int) -> None:
        super().__init__()
        self.lora_A = nn.Parameter(lora_a)
        self.lora_B = nn.Parameter(lora_a.new_zeros(out_rows, lora_a.shape[0]))

    def matrix(self, name: Matrix) -> nn.Parameter:
        """Get one of the two."""
        return self.lora_A if name == "lora_A" else self.lora_B


class LinearAdapter(nn.Module):
    """The adapters of one parallel linear module.

    Args:
        linear: The module that is adapted. It is not kept.
        config: The adapter's config.
        shapes: The whole matrices of each Hugging Face module that is adapted.
    """

    sharded: ClassVar[Matrix]
    """The matrix that is shared out over the ranks of ``group``."""
    replicated: ClassVar[Matrix]
    """The matrix that every rank of ``group`` holds whole."""

    def __init__(
        self,
        linear: ColumnParallelLinear | RowParallelLinear,
        config: LoraConfig,
        shapes: dict[str, LoraShapes],
    ) -> None:
        super().__init__()
        self.config = config
        self.shapes = shapes
        # Of an expert, the expert tensor-parallel group.
        self.group: ProcessGroup = linear.tp_group
        self.is_expert = linear.is_expert
        # Between experts it is the dispatcher of tokens that communicates.
        self.communicates = self.group.size() > 1 and not linear.explicit_expert_comm
        self.sequence_parallel = linear.sequence_parallel
        # Module names have dots, which names of submodules cannot have.
        self.names = {module: module.rpartition(".")[2] for module in shapes}
        self.pairs = nn.ModuleDict()
        for module, shape in shapes.items():
            whole = initial_a(module, shape.lora_A, config.seed)
            rows = shape.lora_B[0]
            if self.sharded == "lora_A":
                whole = self.shard(module, whole)
            else:
                rows //= self.group.size()
            self.pairs[self.names[module]] = LoraPair(whole.to(linear.weight.device), rows)

    def pair(self, module: str) -> LoraPair:
        """Get the matrices of a Hugging Face module, as far as this rank holds them."""
        pair = self.pairs[self.names[module]]
        assert isinstance(pair, LoraPair)
        return pair

    @property
    def sees_part_of_gradient(self) -> bool:
        """Whether the gradients of replicated matrices have to be added up over ``group``.

        Under sequence parallelism each rank sees other tokens; of an expert, nobody adds up the
        gradients of the ranks' outputs before they reach the matrix.
        """
        return self.group.size() > 1 and (self.sequence_parallel or not self.communicates)

    @abstractmethod
    def shard(self, module: str, whole: Tensor) -> Tensor:
        """Take this rank's part of a module's sharded matrix.

        Args:
            module: The Hugging Face module.
            whole: The matrix.

        Returns:
            The part.
        """

    @abstractmethod
    def unshard(self, module: str, parts: list[Tensor]) -> Tensor:
        """Put a module's sharded matrix together: the inverse of :meth:`shard`.

        Args:
            module: The Hugging Face module.
            parts: The part of each rank in ``group``.

        Returns:
            The whole matrix.
        """


class ColumnAdapter(LinearAdapter):
    """The adapters of the projections in a column-parallel linear module.

    Args:
        linear: The module.
        config: The adapter's config.
        fusion: What the module consists of.
    """

    sharded = "lora_B"
    replicated = "lora_A"

    def __init__(self, linear: ColumnParallelLinear, config: LoraConfig, fusion: Fusion) -> None:
        shapes = {
            projection.module: LoraShapes(
                (config.rank, linear.input_size), (projection.rows, config.rank)
            )
            for projection in fusion.projections
            if projection.adapted
        }
        super().__init__(linear, config, shapes)
        self.fusion = fusion
        # What is not in groups is shared out section by section.
        self.groups = max(1, fusion.groups // self.group.size())
        self.sections = {
            projection.module: projection.sections for projection in fusion.projections
        }

    def forward(self, x: Tensor) -> Tensor:
        """Compute what the adapters add.

        Args:
            x: The linear module's input ``[..., in]``; under sequence parallelism, this rank's
                part of the sequence.

        Returns:
            ``[..., out]``, this rank's columns, for the whole sequence.
        """
        # One product, and one message, for all projections.
        stacked = torch.cat([self.pair(module).lora_A for module in self.shapes])
        inner = multiply(x, stacked.to(x.dtype)) * self.config.scale
        if self.communicates and self.sequence_parallel:
            inner = gather_from_sequence_parallel_region(inner, group=self.group)
        elif self.communicates:
            inner = copy_to_tensor_model_parallel_region(inner, group=self.group)
        by_module = dict(zip(self.shapes, inner.split(self.config.rank, dim=-1), strict=True))
        size = self.group.size()
        parts = []
        for module, _, adapted in self.fusion.projections:
            if adapted:
                part = multiply(by_module[module], self.pair(module).lora_B.to(x.dtype))
            else:
                rows = sum(self.sections[module]) // size
                part = inner.new_zeros(*inner.shape[:-1], rows)
            parts.append(part.unflatten(-1, (self.groups, -1)))
        added = torch.cat(parts, dim=-1).flatten(-2)
        return nn.functional.pad(added, (0, self.fusion.unadapted_rows // size))

    def shard(self, module: str, whole: Tensor) -> Tensor:
        """Take this rank's rows of B. See :class:`LinearAdapter`."""
        return local_rows(whole, self.sections[module], self.group.rank(), self.group.size())

    def unshard(self, module: str, parts: list[Tensor]) -> Tensor:
        """Put the rows of B together. See :class:`LinearAdapter`."""
        return all_rows(parts, self.sections[module])


class RowAdapter(LinearAdapter):
    """The adapter of a row-parallel linear module.

    Args:
        linear: The module.
        config: The adapter's config.
        module: The Hugging Face module that it is.
    """

    sharded = "lora_A"
    replicated = "lora_B"

    def __init__(self, linear: RowParallelLinear, config: LoraConfig, module: str) -> None:
        shapes = LoraShapes((config.rank, linear.input_size), (linear.output_size, config.rank))
        super().__init__(linear, config, {module: shapes})
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """Compute what the adapter adds.

        Args:
            x: The linear module's input ``[..., in]``, this rank's columns.

        Returns:
            ``[..., out]``; under sequence parallelism, this rank's part of the sequence. Of an
            expert, a part of the sum over ranks, like the linear module's own output.
        """
        pair = self.pair(self.module)
        inner = multiply(x, pair.lora_A.to(x.dtype)) * self.config.scale
        if self.communicates and self.sequence_parallel:
            inner = reduce_scatter_to_sequence_parallel_region(inner, group=self.group)
        elif self.communicates:
            inner = reduce_from_tensor_model_parallel_region(inner, group=self.group)
        return multiply(inner, pair.lora_B.to(x.dtype))

    def shard(self, module: str, whole: Tensor) -> Tensor:
        """Take this rank's columns of A. See :class:`LinearAdapter`."""
        return whole.chunk(self.group.size(), dim=1)[self.group.rank()].contiguous()

    def unshard(self, module: str, parts: list[Tensor]) -> Tensor:
        """Put the columns of A together. See :class:`LinearAdapter`."""
        return torch.cat(parts, dim=1)
