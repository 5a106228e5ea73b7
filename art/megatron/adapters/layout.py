"""Where the matrices of an adapter lie in PEFT's file.

PEFT names tensors by the modules of transformers. A linear module has an A ``[rank, in]`` and a B
``[out, rank]``. transformers keeps the experts of a layer in one parameter, so PEFT writes four
tensors for all of them, which :mod:`art.megatron.model_support.vllm_lora` shows. The A of gate
and up has two forms there:

- *shared*: one A for both, of the adapter's rank, as PEFT trains it on ``gate_up_proj``;
- *apart*: the A of gate above that of up, of twice the rank, and a B that is zero off its
  diagonal, as PEFT makes it of adapters of ``gate_proj`` and ``up_proj``.

PEFT also reads, and turns into that, a file that names experts one by one.
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


class Place(NamedTuple):
    """Where the A and B of one module lie.

    Args:
        a: The tensor that A is in.
        b: The tensor that B is in.
        a_shape: The shape of that tensor, whole.
        b_shape: The shape of that tensor, whole.
        expert: The expert whose matrices they are, and how many the tensors hold.
        inner: Which rows of the expert's A and columns of its B.
        rows: Which rows of its B.
        zero: Columns of its B that have to be zero in those rows.
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
        """Take the matrices out of the two tensors.

        Args:
            a: The tensor :attr:`a`.
            b: The tensor :attr:`b`.

        Returns:
            A ``[rank, in]``, B ``[out, rank]``.

        Raises:
            AdapterFormatError: B is not zero where it has to be.
        """
        expert, experts = self.expert
        # Rows of A are expert-major, columns of B rank-major.
        of_expert = Adapter(
            a.reshape(experts, -1, a.shape[1])[expert],
            b.reshape(b.shape[0], -1, experts)[self.rows, :, expert],
        )
        if self.zero is not None and of_expert.b[:, self.zero].any():
            raise AdapterFormatError(
                f"{self.b} mixes gate and up of expert {expert}: each has half of the rank, and "
                "the rest of its columns must be zero"
            )
        return Adapter(of_expert.a[self.inner], of_expert.b[:, self.inner])


def find_places(
    modules: Mapping[str, LoraShapes], present: Collection[str], *, apart: bool
) -> dict[str, Place]:
    """Say where in a file the matrices of each module have to be.

    Args:
        modules: The adapted modules of the whole model, as training names them.
        present: The names of the file's tensors, which tell fused experts from single ones.
        apart: Which form the A of gate and up has in fused experts.

    Returns:
        The place of each module, whether or not the file has it.
    """
    experts = Counter(
        match["experts"]
        for module in modules
        if (match := _EXPERT.fullmatch(module)) and match["projection"] == "down_proj"
    )
    places = {}
    for module, shapes in modules.items():
        match = _EXPERT.fullmatch(module)
        if match and f"{PREFIX}{match['experts']}.lora_A.weight" in present:
            expert = (int(match["number"]), experts[match["experts"]])
            places[module] = _fused(match["experts"], match["projection"], expert, shapes, apart)
        else:
            places[module] = Place(*_names(module), shapes.lora_A, shapes.lora_B)
    return places


def _names(module: str) -> tuple[str, str]:
    return f"{PREFIX}{module}.lora_A.weight", f"{PREFIX}{module}.lora_B.weight"


def _fused(
    experts: str,
    projection: str,
    expert: tuple[int, int],
    shapes: LoraShapes,
    apart: bool,
) -> Place:
    (rank, columns), (rows, _) = shapes
    count = expert[1]
    if projection == "down_proj":
        return Place(*_names(experts), (count * rank, columns), (rows, rank * count), expert)
    a, b = _names(f"{experts}.base_layer")
    if projection == "gate_up_proj":
        return Place(a, b, (count * rank, columns), (rows, rank * count), expert)
    is_up = projection == "up_proj"
    half = slice(rows, 2 * rows) if is_up else slice(rows)
    if not apart:
        return Place(a, b, (count * rank, columns), (2 * rows, rank * count), expert, rows=half)
    first, second = slice(rank), slice(rank, 2 * rank)
    inner, zero = (second, first) if is_up else (first, second)
    shapes_apart = (2 * count * rank, columns), (2 * rows, 2 * rank * count)
    return Place(a, b, *shapes_apart, expert, inner, half, zero)
