"""Names and layouts of LoRA tensors: as trained, and as vLLM loads them.

Axes: E experts, R rank, H hidden size, I intermediate size of an expert. An adapter of a linear
module ``X`` is ``base_model.model.X.lora_A.weight`` ``[R, in]`` and ``...lora_B.weight``
``[out, R]``, as PEFT names it.

Experts have two layouts. *Per expert*: each is a linear module, ``mlp.experts.3.down_proj``.
*Fused*, which PEFT writes for models that keep all experts in one parameter, and which vLLM loads
for models whose class says ``is_3d_moe_weight``: four tensors a layer, where gate and up share
their A::

    mlp.experts.base_layer.lora_A.weight   gate and up   [E * R, H]    expert-major rows
    mlp.experts.base_layer.lora_B.weight   gate and up   [2 * I, R * E]  rank-major columns
    mlp.experts.lora_A.weight              down          [E * R, I]
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
    """The adapter of one linear module: A ``[R, in]``, B ``[out, R]``.

    Of stacked experts, A is ``[E, R, in]`` and B ``[E, out, R]``.
    """

    a: Tensor
    b: Tensor


def read_adapters(
    tensors: Mapping[str, Tensor], adapter_config: Mapping[str, Any]
) -> dict[str, Adapter]:
    """Pair the tensors of an adapter file, and check every name, rank and shape.

    Args:
        tensors: Tensors by name.
        adapter_config: Its PEFT config; ``r`` is read.

    Returns:
        Adapters by module, such as ``"base_model.model.model.layers.0.self_attn.q_proj"``. Those
        of fused experts are as in the file: A ``[E * R, in]``, B ``[out, R * E]``.

    Raises:
        AdapterFormatError: A name is not of a LoRA tensor, a tensor has no partner, or a shape
            does not fit the rank.
    """
    rank = rank_of(adapter_config)
    matrices: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match = _NAME.fullmatch(name)
        if match is None:
            raise AdapterFormatError(
                f"{name!r} is not the name of a LoRA tensor; those read "
                "'base_model.model.<module>.lora_A.weight' and '...lora_B.weight'"
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
        Contiguous tensors by name, as safetensors asks.
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
    """Name the modules that an adapter has, as its config's ``target_modules`` does.

    Args:
        adapters: Adapters by module.

    Returns:
        Each name once, in the order met; ``"experts"`` is all routed experts.
    """
    names = {
        "experts" if is_expert(module) else module.rpartition(".")[2]: None for module in adapters
    }
    return list(names)


def is_expert(module: str) -> bool:
    """Say whether a module is of routed experts, in either layout."""
    return bool(_FUSED.fullmatch(module) or _EXPERT.fullmatch(module))


def is_fused(module: str) -> bool:
    """Say whether a module is of routed experts in the fused layout."""
    return bool(_FUSED.fullmatch(module))


def stack_experts(
    adapters: Mapping[str, Adapter], projections: tuple[str, ...]
) -> dict[str, dict[str, Adapter]]:
    """Stack the adapters of experts that are kept one by one.

    Args:
        adapters: Adapters by module; those that are not of experts are passed over.
        projections: The projections that every expert must have.

    Returns:
        By module of the experts (``"...mlp.experts"``) and projection: A ``[E, R, in]`` and
        B ``[E, out, R]``.

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
    """Take the adapters of one layer's experts apart: the inverse of :func:`stack_experts`.

    Args:
        experts: The module of the experts.
        stacked: Adapters by projection: A ``[E, R, in]``, B ``[E, out, R]``.

    Returns:
        Adapters by module, such as ``"...mlp.experts.3.down_proj"``.
    """
    return {
        f"{experts}.{number}.{projection}": Adapter(a, b)
        for projection, adapter in stacked.items()
        for number, (a, b) in enumerate(zip(adapter.a, adapter.b, strict=True))
    }


def unfuse_experts(adapters: Mapping[str, Adapter], rank: int) -> dict[str, dict[str, Adapter]]:
    """Take fused experts apart.

    Args:
        adapters: Adapters by module; those that are not fused experts are passed over.
        rank: The adapter's rank.

    Returns:
        By module of the experts, ``"gate_up_proj"`` and ``"down_proj"``: A ``[E, R, in]`` and
        B ``[E, out, R]``.

    Raises:
        AdapterFormatError: One of the two is missing, or their shapes do not fit together.
    """
    found: dict[str, dict[str, Adapter]] = {}
    for module, adapter in adapters.items():
        match = _FUSED.fullmatch(module)
        if match is not None:
            projection = "gate_up_proj" if match["inner"] else "down_proj"
            found.setdefault(match["experts"], {})[projection] = Adapter(
                adapter.a.reshape(-1, rank, adapter.a.shape[1]),
                adapter.b.reshape(adapter.b.shape[0], rank, -1).permute(2, 0, 1),
            )
    for experts, stacked in found.items():
        _check_fused(experts, stacked)
    return found


def fuse_experts(experts: str, stacked: Mapping[str, Adapter]) -> dict[str, Adapter]:
    """Fuse the experts of one layer: the inverse of :func:`unfuse_experts`.

    Args:
        experts: The module of the experts.
        stacked: ``"gate_up_proj"`` and ``"down_proj"``: A ``[E, R, in]``, B ``[E, out, R]``.

    Returns:
        Adapters by module: A ``[E * R, in]``, B ``[out, R * E]``.

    Raises:
        AdapterFormatError: The two shapes do not fit together.
    """
    _check_fused(experts, stacked)
    modules = {"gate_up_proj": f"{experts}.base_layer", "down_proj": experts}
    return {
        modules[projection]: Adapter(
            adapter.a.flatten(0, 1), adapter.b.permute(1, 2, 0).flatten(1, 2)
        )
        for projection, adapter in stacked.items()
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
    """Take all experts of an adapter apart: the inverse of :func:`fuse_trained_experts`.

    Args:
        adapters: Adapters by module, experts fused.
        rank: The adapter's rank.
        family: The family's key, for the error's message.

    Returns:
        Adapters by module, with ``gate_up_proj`` and ``down_proj`` of every expert.

    Raises:
        AdapterFormatError: An expert is by itself, or shapes do not fit together.
    """
    single = next((name for name in adapters if is_expert(name) and not is_fused(name)), None)
    if single is not None:
        raise AdapterFormatError(
            f"vLLM keeps the experts of {family} fused, but {single} is a single one"
        )
    others = {module: adapter for module, adapter in adapters.items() if not is_expert(module)}
    for experts, stacked in unfuse_experts(adapters, rank).items():
        others |= unstack_experts(experts, stacked)
    return others


def split_gate_up(stacked: Mapping[str, Adapter]) -> dict[str, Adapter]:
    """Give gate and up each an adapter of its own, with the A that they shared.

    Args:
        stacked: ``"gate_up_proj"`` with B ``[E, 2 * I, R]``, and ``"down_proj"``.

    Returns:
        ``"gate_proj"``, ``"up_proj"`` and ``"down_proj"``.
    """
    a, b = stacked["gate_up_proj"]
    gate, up = b.chunk(2, dim=1)
    # Two names for one tensor cannot be saved, so up gets a copy of A.
    return {
        "gate_proj": Adapter(a, gate),
        "up_proj": Adapter(a.clone(), up),
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
                f"{module}: {shapes}: {a.shape[0]} rows of A are not a whole number of experts "
                f"of rank {rank}"
            )
    elif a.shape[0] != rank:
        raise AdapterFormatError(f"{module}: {shapes} have rank {a.shape[0]}, the config {rank}")


def _stack_layer(
    experts: str,
    by_projection: Mapping[str, Mapping[int, Adapter]],
    projections: tuple[str, ...],
) -> dict[str, Adapter]:
    if set(by_projection) != set(projections):
        raise AdapterFormatError(
            f"{experts} has adapters of {sorted(by_projection)}; every expert needs "
            f"{sorted(projections)}, and nothing else"
        )
    numbers = range(1 + max(max(of_expert) for of_expert in by_projection.values()))
    stacked = {}
    for projection in projections:
        of_expert = by_projection[projection]
        missing = [number for number in numbers if number not in of_expert]
        if missing:
            raise AdapterFormatError(f"{experts}: experts {missing} have no {projection}")
        shapes = {(adapter.a.shape, adapter.b.shape) for adapter in of_expert.values()}
        if len(shapes) > 1:
            raise AdapterFormatError(f"{experts}: shapes of {projection} differ among experts")
        stacked[projection] = Adapter(
            torch.stack([of_expert[number].a for number in numbers]),
            torch.stack([of_expert[number].b for number in numbers]),
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
            f"A {list(down.a.shape)} B {list(down.b.shape)} are not [E, R, H], [E, 2I, R], "
            "[E, R, I], [E, H, R]"
        )
