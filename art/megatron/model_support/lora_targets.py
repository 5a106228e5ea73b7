"""The modules of a megatron ``GPTModel`` that can take a LoRA adapter, by their megatron types.

Megatron fuses modules of Hugging Face: ``linear_qkv`` is q, k and v, ``linear_fc1`` is gate and up,
a gated delta net's ``in_proj`` is all of its inputs. A target has the names of both.
"""

from collections.abc import Iterator, Sequence

from megatron.core.models.gpt import GPTModel
from megatron.core.ssm.gated_delta_net import GatedDeltaNet
from megatron.core.transformer.attention import SelfAttention
from megatron.core.transformer.mlp import MLP
from megatron.core.transformer.moe.experts import SequentialMLP, TEGroupedMLP
from megatron.core.transformer.moe.moe_layer import MoELayer
from torch import nn

from art.errors import ConfigurationError

from .spec import LoraTarget

_FC1 = ("gate_proj", "up_proj")
_FC2 = ("down_proj",)


def collect_lora_targets(
    model: GPTModel, *, expert_fc1: tuple[str, ...] = _FC1
) -> list[LoraTarget]:
    """List the linear modules of a model's decoder that can take an adapter.

    Args:
        model: A model, or the part of one that a pipeline rank holds.
        expert_fc1: The family's names for the adapters of an expert's ``linear_fc1``.

    Returns:
        The modules in the order of the layers. In the Hugging Face names, layers and experts have
        the numbers that they have in the whole model.

    Raises:
        ConfigurationError: A layer has no linear modules to adapt, or has modules of an unknown
            type.
    """
    targets: list[LoraTarget] = []
    for position, layer in enumerate(model.decoder.layers):
        path = f"decoder.layers.{position}"
        # Megatron counts layers from 1, over all pipeline ranks.
        hf_layer = f"model.layers.{layer.layer_number - 1}"
        targets += _attention(layer.self_attention, f"{path}.self_attention", hf_layer)
        targets += _mlp(layer.mlp, f"{path}.mlp", f"{hf_layer}.mlp", expert_fc1)
    return targets


def _attention(module: nn.Module, path: str, hf_layer: str) -> Iterator[LoraTarget]:
    if isinstance(module, SelfAttention):
        hf = f"{hf_layer}.self_attn"
        yield _target(f"{path}.linear_qkv", ("q_proj", "k_proj", "v_proj"), hf)
        yield _target(f"{path}.linear_proj", ("o_proj",), hf)
    elif isinstance(module, GatedDeltaNet):
        hf = f"{hf_layer}.linear_attn"
        # in_proj also has b and a, with one row per head: too few to be worth an adapter.
        yield _target(f"{path}.in_proj", ("in_proj_qkv", "in_proj_z"), hf)
        yield _target(f"{path}.out_proj", ("out_proj",), hf)
    else:
        raise _unknown(module, path, "SelfAttention or GatedDeltaNet")


def _mlp(
    module: nn.Module, path: str, hf: str, expert_fc1: tuple[str, ...]
) -> Iterator[LoraTarget]:
    if isinstance(module, MoELayer):
        yield from _experts(module, f"{path}.experts", f"{hf}.experts", expert_fc1)
        if module.shared_experts is not None:
            yield from _dense_mlp(
                module.shared_experts, f"{path}.shared_experts", f"{hf}.shared_expert"
            )
    elif isinstance(module, MLP):
        yield from _dense_mlp(module, path, hf)
    else:
        raise _unknown(module, path, "MLP or MoELayer")


def _dense_mlp(module: MLP, path: str, hf: str) -> Iterator[LoraTarget]:
    _require_gate(module, path)
    yield _target(f"{path}.linear_fc1", _FC1, hf)
    yield _target(f"{path}.linear_fc2", _FC2, hf)


def _experts(module: MoELayer, path: str, hf: str, fc1: tuple[str, ...]) -> Iterator[LoraTarget]:
    experts = module.experts
    numbers = module.local_expert_indices
    if isinstance(experts, SequentialMLP):
        for position, (number, expert) in enumerate(
            zip(numbers, experts.local_experts, strict=True)
        ):
            _require_gate(expert, path)
            local = f"{path}.local_experts.{position}"
            yield _expert_target(f"{local}.linear_fc1", _FC1, hf, fc1, [number])
            yield _expert_target(f"{local}.linear_fc2", _FC2, hf, _FC2, [number])
    elif isinstance(experts, TEGroupedMLP):
        _require_gate(experts, path)
        yield _expert_target(f"{path}.linear_fc1", _FC1, hf, fc1, numbers)
        yield _expert_target(f"{path}.linear_fc2", _FC2, hf, _FC2, numbers)
    else:
        # Such as GroupedMLP, whose weights are bare parameters.
        raise _unknown(experts, path, "SequentialMLP or TEGroupedMLP")


def _target(path: str, projections: tuple[str, ...], hf: str) -> LoraTarget:
    return LoraTarget(
        module_path=path,
        target_modules=projections,
        adapter_modules=tuple(f"{hf}.{projection}" for projection in projections),
    )


def _expert_target(
    path: str,
    projections: tuple[str, ...],
    hf: str,
    adapters: tuple[str, ...],
    numbers: Sequence[int],
) -> LoraTarget:
    return LoraTarget(
        module_path=path,
        target_modules=("experts", *projections),
        adapter_modules=tuple(
            f"{hf}.{number}.{adapter}" for number in numbers for adapter in adapters
        ),
    )


def _require_gate(module: MLP | TEGroupedMLP, path: str) -> None:
    if not module.config.gated_linear_unit:
        raise ConfigurationError(
            f"{path} has no gate (gated_linear_unit=False), so its linear_fc1 is not the gate_proj "
            "and up_proj that an adapter is named by"
        )


def _unknown(module: nn.Module, path: str, known: str) -> ConfigurationError:
    return ConfigurationError(
        f"{path} is a {type(module).__name__}, in which art can adapt no linear module; build the "
        f"model with {known}"
    )
