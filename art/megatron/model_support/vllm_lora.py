"""Names and layouts of LoRA tensors: as trained, and as vLLM loads them.

Axes: E experts, R rank of the adapter, H hidden size, F intermediate size of an expert, I input and
O output features of a module. The adapter of a linear module ``X`` is, by PEFT's names,
``base_model.model.X.lora_A.weight`` ``[R, I]`` and ``...lora_B.weight`` ``[O, R]``.

Experts have two layouts. *Per expert*: each is a linear module, ``mlp.experts.3.down_proj``.
*Fused*: four tensors for each layer, where gate and up share their A. PEFT writes it for models
that keep all experts in one parameter, and vLLM loads it for models whose class says
``is_3d_moe_weight``::

    mlp.experts.base_layer.lora_A.weight   gate and up   [E * R, H]      expert-major rows
    mlp.experts.base_layer.lora_B.weight   gate and up   [2 * F, R * E]  rank-major columns
    mlp.experts.lora_A.weight              down          [E * R, F]
    mlp.experts.lora_B.weight              down          [H, R * E]
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from art.errors import AdapterFormatError

_NAME = re.compile(r"(?P<module>base_model\.model\..+)\.lora_(?P<matrix>[AB])\.weight")
_FUSED = re.compile(r"(?P<experts>.+\.mlp\.experts)(?P<inner>\.base_layer)?")
_EXPERT = re.compile(r"(?P<experts>.+\.mlp\.experts)\.(?P<number>\d+)\.(?P<projection>\w+)")


class Adapter(NamedTuple):
    """The adapter of one linear module: A ``[R, I]``, B ``[O, R]``.

    For stacked experts, A is ``[E, R, I]`` and B ``[E, O, R]``.
    """

    a: Tensor
    b: Tensor


def read_adapters(
    tensors: Mapping[str, Tensor], adapter_config: Mapping[str, Any]
) -> dict[str, Adapter]:
    """Group the tensors of an adapter file by module, and check every name, rank and shape.

    Args:
        tensors: Tensors by name.
        adapter_config: Its PEFT config; ``r`` is read.

    Returns:
        Adapters by module, such as ``"base_model.model.model.layers.0.self_attn.q_proj"``. Those
        of fused experts are as in the file: A ``[E * R, I]``, B ``[O, R * E]``.

    Raises:
        AdapterFormatError: A name is not that of a LoRA tensor, an A or B is missing, or a shape
            does not fit the rank.
    """
    rank = rank_of(adapter_config)
    matrices: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match = _NAME.fullmatch(name)
        if match is None:
            raise AdapterFormatError(
                f"{name!r} is not the name of a LoRA tensor; it must be "
                "'base_model.model.<module>.lora_A.weight' or '...lora_B.weight'"
            )
        matrices.setdefault(match["module"], {})[match["matrix"]] = tensor
    adapters = {}
    for module, pair in matrices.items():
        if len(pair) < 2:
            (present,) = pair
            absent = "B" if present == "A" else "A"
            raise AdapterFormatError(f"{module} has lora_{present} but no lora_{absent}")
        adapters[module] = Adapter(pair["A"], pair["B"])
        _check_shapes(module, adapters[module], rank)
    return adapters


def write_adapters(adapters: Mapping[str, Adapter]) -> dict[str, Tensor]:
    """Name the tensors of adapters: the inverse of :func:`read_adapters`.

    Args:
        adapters: Adapters by module.

    Returns:
        Contiguous tensors by name, as safetensors requires.
    """
    tensors: dict[str, Tensor] = {}
    for module, adapter in adapters.items():
        tensors[f"{module}.lora_A.weight"] = adapter.a.contiguous()
        tensors[f"{module}.lora_B.weight"] = adapter.b.contiguous()
    return tensors


def rank_of(adapter_config: Mapping[str, Any]) -> int:
    """Read the rank ``r`` of an adapter's PEFT config.

    Args:
        adapter_config: The config.

    Returns:
        The rank, at least 1.

    Raises:
        AdapterFormatError: ``r`` is missing or not a positive whole number.
    """
    rank = adapter_config.get("r")
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise AdapterFormatError(f"the adapter config's r must be a positive int, not {rank!r}")
    return rank


def target_modules_of(adapters: Mapping[str, Adapter]) -> list[str]:
    """List the modules of an adapter, as its config's ``target_modules`` does.

    Args:
        adapters: Adapters by module.

    Returns:
        Each name once; ``"experts"`` is all routed experts.
    """
    names = {
        "experts" if is_expert(module) else module.rpartition(".")[2]: None for module in adapters
    }
    return list(names)


def is_expert(module: str) -> bool:
    """Test whether a module belongs to routed experts, in either layout."""
    return bool(_FUSED.fullmatch(module) or _EXPERT.fullmatch(module))


def is_fused(module: str) -> bool:
    """Test whether a module belongs to routed experts in the fused layout."""
    return bool(_FUSED.fullmatch(module))


def stack_experts(
    adapters: Mapping[str, Adapter], projections: tuple[str, ...]
) -> dict[str, dict[str, Adapter]]:
    """Stack the adapters of experts that are kept one by one.

    Args:
        adapters: Adapters by module; those of other modules than experts are ignored.
        projections: The projections that every expert must have.

    Returns:
        By the experts' module (``"...mlp.experts"``) and projection: A ``[E, R, I]`` and
        B ``[E, O, R]``.

    Raises:
        AdapterFormatError: An expert or a projection is missing, unknown, or of another shape.
    """
    found: dict[str, dict[str, dict[int, Adapter]]] = {}
    for module, adapter in adapters.items():
        match = _EXPERT.fullmatch(module)
        if match is not None:
            by_projection = found.setdefault(match["experts"], {})
            by_projection.setdefault(match["projection"], {})[int(match["number"])] = adapter
    return {
        experts: _stack_layer(experts, by_projection, projections)
        for experts, by_projection in found.items()
    }


def unstack_experts(experts: str, stacked: Mapping[str, Adapter]) -> dict[str, Adapter]:
    """Split the stacked adapters of one layer's experts: the inverse of :func:`stack_experts`.

    Args:
        experts: The experts' module.
        stacked: Adapters by projection: A ``[E, R, I]``, B ``[E, O, R]``.

    Returns:
        Adapters by module, such as ``"...mlp.experts.3.down_proj"``.
    """
    return {
        f"{experts}.{number}.{projection}": Adapter(a_RI, b_OR)
        for projection, (a_ERI, b_EOR) in stacked.items()
        for number, (a_RI, b_OR) in enumerate(zip(a_ERI, b_EOR, strict=True))
    }


def unfuse_experts(adapters: Mapping[str, Adapter], rank: int) -> dict[str, dict[str, Adapter]]:
    """Convert fused experts to stacked ones.

    Args:
        adapters: Adapters by module; those of other modules than fused experts are ignored.
        rank: The adapter's rank R.

    Returns:
        By the experts' module, ``"gate_up_proj"`` and ``"down_proj"``: A ``[E, R, I]`` and
        B ``[E, O, R]``.

    Raises:
        AdapterFormatError: One of the two is missing, or their shapes do not fit together.
    """
    found: dict[str, dict[str, Adapter]] = {}
    for module, adapter in adapters.items():
        match = _FUSED.fullmatch(module)
        if match is not None:
            projection = "gate_up_proj" if match["inner"] else "down_proj"
            a_ERI = adapter.a.reshape(-1, rank, adapter.a.shape[1])
            b_ORE = adapter.b.reshape(adapter.b.shape[0], rank, -1)
            stacked = Adapter(a_ERI, b_ORE.permute(2, 0, 1))
            found.setdefault(match["experts"], {})[projection] = stacked
    for experts, by_projection in found.items():
        _check_fused(experts, by_projection)
    return found


def fuse_experts(experts: str, stacked: Mapping[str, Adapter]) -> dict[str, Adapter]:
    """Fuse the experts of one layer: the inverse of :func:`unfuse_experts`.

    Args:
        experts: The experts' module.
        stacked: ``"gate_up_proj"`` and ``"down_proj"``: A ``[E, R, I]``, B ``[E, O, R]``.

    Returns:
        Adapters by module: A ``[E * R, I]``, B ``[O, R * E]``.

    Raises:
        AdapterFormatError: The two shapes do not fit together.
    """
    _check_fused(experts, stacked)
    modules = {"gate_up_proj": f"{experts}.base_layer", "down_proj": experts}
    return {
        modules[projection]: Adapter(a_ERI.flatten(0, 1), b_EOR.permute(1, 2, 0).flatten(1, 2))
        for projection, (a_ERI, b_EOR) in stacked.items()
    }


def fuse_trained_experts(adapters: Mapping[str, Adapter]) -> dict[str, Adapter]:
    """Fuse all experts of an adapter whose gate and up were trained as one.

    Args:
        adapters: Adapters by module, with ``gate_up_proj`` and ``down_proj`` of every expert.

    Returns:
        Adapters by module, those of other modules as they were.

    Raises:
        AdapterFormatError: Experts are fused already, or one or a projection is missing, unknown
            or of another shape.
    """
    fused = next(filter(is_fused, adapters), None)
    if fused is not None:
        raise AdapterFormatError(f"training keeps experts one by one, but {fused} is fused")
    others = {module: adapter for module, adapter in adapters.items() if not is_expert(module)}
    for experts, stacked in stack_experts(adapters, ("gate_up_proj", "down_proj")).items():
        others |= fuse_experts(experts, stacked)
    return others


def unfuse_served_experts(
    adapters: Mapping[str, Adapter], rank: int, *, family: str
) -> dict[str, Adapter]:
    """Split all experts of an adapter: the inverse of :func:`fuse_trained_experts`.

    Args:
        adapters: Adapters by module, with fused experts.
        rank: The adapter's rank R.
        family: The family's key, for the error message.

    Returns:
        Adapters by module, with ``gate_up_proj`` and ``down_proj`` of every expert.

    Raises:
        AdapterFormatError: An expert is not fused, or shapes do not fit together.
    """
    single = next((name for name in adapters if is_expert(name) and not is_fused(name)), None)
    if single is not None:
        raise AdapterFormatError(
            f"vLLM keeps the experts of {family} fused, but {single} is of a single expert"
        )
    others = {module: adapter for module, adapter in adapters.items() if not is_expert(module)}
    for experts, stacked in unfuse_experts(adapters, rank).items():
        others |= unstack_experts(experts, stacked)
    return others


def split_gate_up(stacked: Mapping[str, Adapter]) -> dict[str, Adapter]:
    """Split the adapter of gate and up in two, each with the A that they shared.

    Args:
        stacked: ``"gate_up_proj"`` with B ``[E, 2 * F, R]``, and ``"down_proj"``.

    Returns:
        ``"gate_proj"``, ``"up_proj"`` and ``"down_proj"``.
    """
    a_ERH, b_EOR = stacked["gate_up_proj"]
    gate_EFR, up_EFR = b_EOR.chunk(2, dim=1)
    # Two names for one tensor cannot be saved, so up gets a copy of A.
    return {
        "gate_proj": Adapter(a_ERH, gate_EFR),
        "up_proj": Adapter(a_ERH.clone(), up_EFR),
        "down_proj": stacked["down_proj"],
    }


def _check_shapes(module: str, adapter: Adapter, rank: int) -> None:
    a, b = adapter
    shapes = f"lora_A {list(a.shape)}, lora_B {list(b.shape)}"
    if a.ndim != 2 or b.ndim != 2:
        raise AdapterFormatError(f"{module}: {shapes} must be matrices")
    if a.shape[0] != b.shape[1]:
        raise AdapterFormatError(f"{module}: {shapes}: rows of A must equal columns of B")
    if is_fused(module):
        if a.shape[0] == 0 or a.shape[0] % rank:
            raise AdapterFormatError(
                f"{module}: {shapes}: {a.shape[0]} rows of A are not a multiple of the rank {rank}"
            )
    elif a.shape[0] != rank:
        raise AdapterFormatError(
            f"{module}: {shapes} have rank {a.shape[0]}, but the config has r={rank}"
        )


def _stack_layer(
    experts: str,
    by_projection: Mapping[str, Mapping[int, Adapter]],
    projections: tuple[str, ...],
) -> dict[str, Adapter]:
    if set(by_projection) != set(projections):
        raise AdapterFormatError(
            f"{experts} has adapters of {sorted(by_projection)}; every expert must have "
            f"{sorted(projections)}, and no others"
        )
    numbers = range(1 + max(max(by_number) for by_number in by_projection.values()))
    stacked = {}
    for projection in projections:
        by_number = by_projection[projection]
        missing = [number for number in numbers if number not in by_number]
        if missing:
            raise AdapterFormatError(f"{experts}: experts {missing} have no {projection}")
        shapes = {(adapter.a.shape, adapter.b.shape) for adapter in by_number.values()}
        if len(shapes) > 1:
            raise AdapterFormatError(f"{experts}: shapes of {projection} differ among experts")
        stacked[projection] = Adapter(
            torch.stack([by_number[number].a for number in numbers]),
            torch.stack([by_number[number].b for number in numbers]),
        )
    return stacked


def _check_fused(experts: str, stacked: Mapping[str, Adapter]) -> None:
    if set(stacked) != {"gate_up_proj", "down_proj"}:
        raise AdapterFormatError(
            f"{experts} has only {sorted(stacked)}; fused experts need base_layer.lora_A and "
            "base_layer.lora_B (gate and up), lora_A and lora_B (down)"
        )
    gate_up, down = stacked["gate_up_proj"], stacked["down_proj"]
    fits = (
        gate_up.a.shape[0] == down.a.shape[0]
        and gate_up.b.shape[1] == 2 * down.a.shape[2]
        and gate_up.a.shape[2] == down.b.shape[1]
    )
    if not fits:
        raise AdapterFormatError(
            f"{experts}: gate and up A {list(gate_up.a.shape)} B {list(gate_up.b.shape)}, down "
            f"A {list(down.a.shape)} B {list(down.b.shape)} are not [E, R, H], [E, 2F, R], "
            "[E, R, F], [E, H, R]"
        )
