"""Adapters that are written wrongly, which the comparison with vLLM must find."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from .tiny_models import hf_config


class Written(NamedTuple):
    """The tensors of an adapter by the names of training, and by vLLM's."""

    trained: dict[str, Tensor]
    served: dict[str, Tensor]


class Fault(NamedTuple):
    """A way to write an adapter wrongly.

    Args:
        case: The case of the adapter, one of ``tiny_models``.
        spoil: Makes the wrong tensors.
        refusal: A regular expression for vLLM's error; empty if it loads them.
        weights: The kinds of weights that vLLM then serves wrongly.
    """

    case: str
    spoil: Callable[[Written], dict[str, Tensor]]
    refusal: str = ""
    weights: tuple[str, ...] = ()


def _renamed(old: str, new: str) -> Callable[[Written], dict[str, Tensor]]:
    return lambda written: {name.replace(old, new): t for name, t in written.served.items()}


def _only(module: str) -> Callable[[Written], dict[str, Tensor]]:
    return lambda written: {name: t for name, t in written.served.items() if module in name}


def _gates_as_trained(written: Written) -> dict[str, Tensor]:
    def in_decoder(name: str) -> str:
        return name.partition(".layers.")[2]

    trained = {in_decoder(name): tensor for name, tensor in written.trained.items()}
    return {
        name: trained[in_decoder(name)] if ".q_proj." in name else tensor
        for name, tensor in written.served.items()
    }


def _gate_and_up(change: Callable[[Tensor], Tensor]) -> Callable[[Written], dict[str, Tensor]]:
    """Change the B of fused experts' gate and up."""
    return lambda written: {
        name: change(t).contiguous() if name.endswith(".base_layer.lora_B.weight") else t
        for name, t in written.served.items()
    }


def _expert_by_expert(b: Tensor) -> Tensor:
    experts = hf_config("qwen3_5_moe").num_experts
    return b.unflatten(1, (-1, experts)).transpose(1, 2).flatten(1)


def _up_first(b: Tensor) -> Tensor:
    return b.roll(b.shape[0] // 2, 0)


def _gates_before_ups(b: Tensor) -> Tensor:
    return b.unflatten(0, (-1, 2)).transpose(0, 1).flatten(0, 1)


def _next_expert(written: Written) -> dict[str, Tensor]:
    experts = hf_config("qwen3_moe").num_experts
    served = {}
    for name, tensor in written.served.items():
        layer, found, expert = name.partition(".mlp.experts.")
        if found:
            number, _, rest = expert.partition(".")
            name = f"{layer}{found}{(int(number) + 1) % experts}.{rest}"
        served[name] = tensor
    return served


FAULTS = {
    "unknown-module": Fault(
        "qwen3_dense", _renamed(".q_proj.", ".query."), r"received \['model\.layers\.0.*\.query'"
    ),
    "single-experts": Fault(
        "qwen3_5_moe",
        _renamed(".experts.lora_", ".experts.0.down_proj.lora_"),
        r"received \['language_model.*\.experts\.0\.down_proj'",
    ),
    # vLLM cannot express that q, k and v have no adapter.
    "z-alone": Fault("qwen3_5_dense", _only(".in_proj_z."), r"Cannot determine how to split"),
    # vLLM ignores adapters of modules that it lacks, if their last name is known.
    "unknown-path": Fault(
        "qwen3_dense",
        _renamed(".model.layers.1.mlp.", ".model.layers.1.ffn."),
        weights=("gate_up_proj.weight", "down_proj.weight"),
    ),
    "gates-as-trained": Fault("qwen3_5_dense", _gates_as_trained, weights=("qkv_proj.weight",)),
    "columns-by-expert": Fault(
        "qwen3_5_moe", _gate_and_up(_expert_by_expert), weights=("w13_weight",)
    ),
    "up-before-gate": Fault("qwen3_5_moe", _gate_and_up(_up_first), weights=("w13_weight",)),
    "gates-before-ups": Fault("gpt_oss", _gate_and_up(_gates_before_ups), weights=("w13_weight",)),
    "next-expert": Fault("qwen3_moe", _next_expert, weights=("w13_weight", "w2_weight")),
}
