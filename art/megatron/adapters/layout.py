"""The positions of an adapter's matrices in PEFT's file.

PEFT names tensors by the modules of transformers. A linear module has an A ``[R, I]`` and a B
``[O, R]``. transformers keeps the experts of a layer in one parameter, so PEFT writes four tensors
for all of them, which :mod:`art.megatron.model_support.vllm_lora` shows. The A of gate and up has
two forms there:

- *shared*: one A of rank R for both, as PEFT trains it on ``gate_up_proj``;
- *apart*: the A of gate above that of up, of rank 2 * R, and a block-diagonal B, as PEFT makes it
  from adapters of ``gate_proj`` and ``up_proj``.

PEFT also reads a file that names experts one by one, and converts it to that.

Axes: E experts, R rank of the adapter, I input and O output features of a module.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from typing import NamedTuple

from torch import Tensor

from art.errors import AdapterFormatError
from art.megatron.lora.layers import LoraShapes
from art.megatron.model_support.vllm_lora import Adapter

from .gather import PREFIX

_EXPERT = re.compile(r"(?P<experts>.+\.mlp\.experts)\.(?P<number>\d+)\.(?P<projection>\w+)")
_ALL = slice(None)


class TensorSlot(NamedTuple):
    """The position of the A and B of one module in a file.

    Args:
        a: The name of the tensor that contains A.
        b: The name of the tensor that contains B.
        a_shape: The whole shape of that tensor, ``[E * R, I]``.
        b_shape: The whole shape of that tensor, ``[O, R * E]``.
        expert: The expert that the module belongs to, and the number E in the tensors.
        inner: The rows of the expert's A and the columns of its B.
        rows: The rows of the expert's B.
        zero: The columns of the expert's B that must be zero in those rows.
    """

    a: str
    b: str
    a_shape: tuple[int, int]
    b_shape: tuple[int, int]
    expert: tuple[int, int] = (0, 1)
    inner: slice = _ALL
    rows: slice = _ALL
    zero: slice | None = None

    def take(self, a: Tensor, b: Tensor) -> Adapter:
        """Take the module's matrices out of the two tensors.

        Args:
            a: The tensor :attr:`a`, ``[E * R, I]``.
            b: The tensor :attr:`b`, ``[O, R * E]``.

        Returns:
            A ``[R, I]``, B ``[O, R]``.

        Raises:
            AdapterFormatError: B is not zero in the columns :attr:`zero`.
        """
        expert, experts = self.expert
        # Rows of A are expert-major, columns of B rank-major.
        a_RI = a.reshape(experts, -1, a.shape[1])[expert]
        b_OR = b.reshape(b.shape[0], -1, experts)[self.rows, :, expert]
        if self.zero is not None and b_OR[:, self.zero].any():
            raise AdapterFormatError(
                f"{self.b} mixes gate and up of expert {expert}: each has half of the rank, and "
                "the rest of its columns must be zero"
            )
        return Adapter(a_RI[self.inner], b_OR[:, self.inner])


def find_slots(
    modules: Mapping[str, LoraShapes], present: Collection[str], *, apart: bool
) -> dict[str, TensorSlot]:
    """Find the slot of each module in a file.

    Args:
        modules: The adapted modules of the whole model, as training names them.
        present: The names of the file's tensors, which tell fused experts from single ones.
        apart: True if fused experts keep the A of gate and up apart, False if they share it.

    Returns:
        The slot of each module; the file need not have its tensors.
    """
    experts = Counter(
        match["experts"]
        for module in modules
        if (match := _EXPERT.fullmatch(module)) and match["projection"] == "down_proj"
    )
    slots = {}
    for module, shapes in modules.items():
        match = _EXPERT.fullmatch(module)
        if match and f"{PREFIX}{match['experts']}.lora_A.weight" in present:
            expert = (int(match["number"]), experts[match["experts"]])
            slots[module] = _fused(match["experts"], match["projection"], expert, shapes, apart)
        else:
            slots[module] = TensorSlot(*_names(module), shapes.lora_A, shapes.lora_B)
    return slots


def _names(module: str) -> tuple[str, str]:
    return f"{PREFIX}{module}.lora_A.weight", f"{PREFIX}{module}.lora_B.weight"


def _fused(
    experts: str,
    projection: str,
    expert: tuple[int, int],
    shapes: LoraShapes,
    apart: bool,
) -> TensorSlot:
    (rank, columns), (rows, _) = shapes
    count = expert[1]
    if projection == "down_proj":
        return TensorSlot(*_names(experts), (count * rank, columns), (rows, rank * count), expert)
    a, b = _names(f"{experts}.base_layer")
    if projection == "gate_up_proj":
        return TensorSlot(a, b, (count * rank, columns), (rows, rank * count), expert)
    is_up = projection == "up_proj"
    half = slice(rows, 2 * rows) if is_up else slice(rows)
    if not apart:
        return TensorSlot(
            a, b, (count * rank, columns), (2 * rows, rank * count), expert, rows=half
        )
    first, second = slice(rank), slice(rank, 2 * rank)
    inner, zero = (second, first) if is_up else (first, second)
    shapes_apart = (2 * count * rank, columns), (2 * rows, 2 * rank * count)
    return TensorSlot(a, b, *shapes_apart, expert, inner, half, zero)
