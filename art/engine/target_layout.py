"""The layout of ``target_prompt_logprobs``, which its answer has too.

Shapes: M positions of the prompt but the first, K columns, C cells that were sent, L targets.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from art.executors.types import FloatArray, IntArray


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetLayout:
    """The places of the targets in the tensor that a client sent.

    Attributes:
        shape: ``(M, K)``.
        is_target: bool ``[C]``, False where a cell asks for nothing; in row-major order.
        csr: Row pointers int64 ``[M + 1]`` and column indices int64 ``[C]`` of a sparse tensor;
            ``None`` is a dense one, of ``C = M * K`` cells.
    """

    shape: tuple[int, int]
    is_target: npt.NDArray[np.bool_]
    csr: tuple[IntArray, IntArray] | None = None

    def fill(self, values_L: FloatArray) -> FloatArray:
        """Put the targets' values into their cells: float32 ``[C]``, 0 elsewhere."""
        cells_C = np.zeros(self.is_target.shape, np.float32)
        cells_C[self.is_target] = values_L
        return cells_C
