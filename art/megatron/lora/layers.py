"""Adapters of megatron's parallel linear modules.

An adapter adds ``alpha / rank * B A x`` to its linear module's output. For a column-parallel
module each tensor-parallel rank holds all of A and its rows of B; for a row-parallel module, its
columns of A and all of B. Ranks exchange only ``A x``, which is ``rank`` numbers for each token.

Axes: T tokens (``[S, B]``, the positions of the batch's sequences, or the tokens of an expert),
I input and O output features of a linear module, R rank of the adapter, J the R of every adapted
projection one after the other, G groups of rows. A lower-case letter is this rank's part of an
axis: ``t`` its part of the sequence (all of it without sequence parallelism), ``i`` its columns of
the input, ``o`` its columns of the output.
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

from .config import MegatronLoraConfig
from .initial import initial_a
from .projections import Fusion, all_rows, local_rows

Matrix = Literal["lora_A", "lora_B"]


class LoraShapes(NamedTuple):
    """The shapes of the whole matrices of a Hugging Face module: A ``[R, I]``, B ``[O, R]``."""

    lora_A: tuple[int, int]
    lora_B: tuple[int, int]


class LoraPair(nn.Module):
    """This rank's part of the A and B of one Hugging Face module.

    Both are float32, as in PEFT, since bfloat16 would round small steps away. They are cast to the
    dtype of the activations to be multiplied.

    Args:
        a: ``[R, I]``; for a row-parallel module ``[R, i]``.
        rows: Rows of B: O, or for a column-parallel module o. B starts at zero.
    """

    def __init__(self, a: Tensor, rows: int) -> None:
        super().__init__()
        self.lora_A = nn.Parameter(a)
        self.lora_B = nn.Parameter(a.new_zeros(rows, a.shape[0]))

    def matrix(self, name: Matrix) -> nn.Parameter:
        """Get A or B by its name."""
        return self.lora_A if name == "lora_A" else self.lora_B


class LinearAdapter(nn.Module):
    """The adapters of one parallel linear module.

    Args:
        linear: The linear module. No reference to it is kept.
        config: The adapter's config.
        shapes: The shapes of the whole matrices, by the Hugging Face modules that are adapted.
    """

    sharded: ClassVar[Matrix]
    """The matrix that is sharded over the ranks of ``group``."""
    replicated: ClassVar[Matrix]
    """The matrix that every rank of ``group`` holds whole."""

    def __init__(
        self,
        linear: ColumnParallelLinear | RowParallelLinear,
        config: MegatronLoraConfig,
        shapes: dict[str, LoraShapes],
    ) -> None:
        super().__init__()
        self.config = config
        self.shapes = shapes
        # For an expert, this is the expert tensor-parallel group.
        self.group: ProcessGroup = linear.tp_group
        self.is_expert = linear.is_expert
        # Between experts, the token dispatcher communicates.
        self.communicates = self.group.size() > 1 and not linear.explicit_expert_comm
        self.sequence_parallel = linear.sequence_parallel
        # Module names contain dots, which names of submodules must not.
        self.names = {module: module.rpartition(".")[2] for module in shapes}
        self.pairs = nn.ModuleDict()
        for module, shape in shapes.items():
            a_RI = initial_a(module, shape.lora_A, config.seed)
            rows = shape.lora_B[0]
            if self.sharded == "lora_A":
                a_RI = self.shard(module, a_RI)
            else:
                rows //= self.group.size()
            self.pairs[self.names[module]] = LoraPair(a_RI.to(linear.weight.device), rows)

    def pair(self, module: str) -> LoraPair:
        """Get this rank's part of the matrices of a Hugging Face module."""
        pair = self.pairs[self.names[module]]
        assert isinstance(pair, LoraPair)
        return pair

    @property
    def sees_part_of_gradient(self) -> bool:
        """True if the gradients of replicated matrices must be summed over ``group``.

        Under sequence parallelism each rank sees other tokens. In an expert, the gradients of the
        ranks' outputs are not summed before they reach the matrix.
        """
        return self.group.size() > 1 and (self.sequence_parallel or not self.communicates)

    @abstractmethod
    def shard(self, module: str, whole: Tensor) -> Tensor:
        """Take this rank's part of a module's sharded matrix.

        Args:
            module: The Hugging Face module.
            whole: The whole matrix.

        Returns:
            This rank's part.
        """

    @abstractmethod
    def unshard(self, module: str, parts: list[Tensor]) -> Tensor:
        """Assemble a module's sharded matrix: the inverse of :meth:`shard`.

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
        fusion: The projections that the module fuses.
    """

    sharded = "lora_B"
    replicated = "lora_A"

    def __init__(
        self, linear: ColumnParallelLinear, config: MegatronLoraConfig, fusion: Fusion
    ) -> None:
        shapes = {
            projection.module: LoraShapes(
                (config.rank, linear.input_size), (projection.rows, config.rank)
            )
            for projection in fusion.projections
            if projection.adapted
        }
        super().__init__(linear, config, shapes)
        self.fusion = fusion
        # This rank's groups of rows. Without groups, each section of rows is sharded by itself.
        self.groups = max(1, fusion.groups // self.group.size())
        self.sections = {
            projection.module: projection.sections for projection in fusion.projections
        }

    def forward(self, x_tI: Tensor) -> Tensor:
        """Compute the adapters' part of the linear module's output.

        Args:
            x_tI: The linear module's input ``[t, I]``.

        Returns:
            ``[T, o]``: this rank's columns of the output, for the whole sequence.
        """
        # 1. A x of all projections, in one product and later in one message.
        a_JI = torch.cat([self.pair(module).lora_A for module in self.shapes])
        inner_tJ = multiply(x_tI, a_JI.to(x_tI.dtype)) * self.config.scale
        # 2. Every rank needs A x of all tokens. Sequence parallelism gathers them; otherwise they
        #    are here already, and only the backward pass communicates, to sum the gradients.
        if self.communicates and self.sequence_parallel:
            inner_TJ = gather_from_sequence_parallel_region(inner_tJ, group=self.group)
        elif self.communicates:
            inner_TJ = copy_to_tensor_model_parallel_region(inner_tJ, group=self.group)
        else:
            inner_TJ = inner_tJ
        # 3. B of each projection, or zeros for one without an adapter, cut into groups of rows.
        inner_TR_of = dict(zip(self.shapes, inner_TJ.split(self.config.rank, dim=-1), strict=True))
        size = self.group.size()
        parts_TGo = []
        for module, _, adapted in self.fusion.projections:
            if adapted:
                b_oR = self.pair(module).lora_B
                part_To = multiply(inner_TR_of[module], b_oR.to(x_tI.dtype))
            else:
                rows = sum(self.sections[module]) // size
                part_To = inner_TJ.new_zeros(*inner_TJ.shape[:-1], rows)
            parts_TGo.append(part_To.unflatten(-1, (self.groups, -1)))
        # 4. Group by group the projections lie side by side, as in the fused output, which ends
        #    with the rows that no adapter can have.
        added_To = torch.cat(parts_TGo, dim=-1).flatten(-2)
        return nn.functional.pad(added_To, (0, self.fusion.unadapted_rows // size))

    def shard(self, module: str, whole: Tensor) -> Tensor:
        """Take this rank's rows of B. See :class:`LinearAdapter`."""
        return local_rows(whole, self.sections[module], self.group.rank(), self.group.size())

    def unshard(self, module: str, parts: list[Tensor]) -> Tensor:
        """Assemble the rows of B. See :class:`LinearAdapter`."""
        return all_rows(parts, self.sections[module])


class RowAdapter(LinearAdapter):
    """The adapter of a row-parallel linear module.

    Args:
        linear: The module.
        config: The adapter's config.
        module: The Hugging Face module with the same weight.
    """

    sharded = "lora_A"
    replicated = "lora_B"

    def __init__(self, linear: RowParallelLinear, config: MegatronLoraConfig, module: str) -> None:
        shapes = LoraShapes((config.rank, linear.input_size), (linear.output_size, config.rank))
        super().__init__(linear, config, {module: shapes})
        self.module = module

    def forward(self, x_Ti: Tensor) -> Tensor:
        """Compute the adapter's part of the linear module's output.

        Args:
            x_Ti: The linear module's input ``[T, i]``: this rank's columns.

        Returns:
            ``[t, O]``. For an expert, this rank's part of a sum over ranks, like the output of the
            linear module itself.
        """
        pair = self.pair(self.module)
        # 1. This rank's columns give a part of A x, which is the sum over ranks.
        inner_TR = multiply(x_Ti, pair.lora_A.to(x_Ti.dtype)) * self.config.scale
        # 2. Sum it. Under sequence parallelism each rank keeps its part of the sequence.
        if self.communicates and self.sequence_parallel:
            inner_tR = reduce_scatter_to_sequence_parallel_region(inner_TR, group=self.group)
        elif self.communicates:
            inner_tR = reduce_from_tensor_model_parallel_region(inner_TR, group=self.group)
        else:
            inner_tR = inner_TR
        # 3. Every rank holds all of B.
        return multiply(inner_tR, pair.lora_B.to(x_Ti.dtype))

    def shard(self, module: str, whole: Tensor) -> Tensor:
        """Take this rank's columns of A. See :class:`LinearAdapter`."""
        return whole.chunk(self.group.size(), dim=1)[self.group.rank()].contiguous()

    def unshard(self, module: str, parts: list[Tensor]) -> Tensor:
        """Assemble the columns of A. See :class:`LinearAdapter`."""
        return torch.cat(parts, dim=1)
