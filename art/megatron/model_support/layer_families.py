"""The kinds of layers in a megatron ``TransformerConfig``."""

from megatron.core.models.gpt.experimental_attention_variant_module_specs import (
    get_linear_attention_pattern,
    get_moe_layer_pattern,
    is_linear_attention_variant,
)
from megatron.core.ssm.gated_delta_net import GatedDeltaNet
from megatron.core.transformer import TransformerConfig
from megatron.core.transformer.attention import SelfAttention
from megatron.core.transformer.mlp import MLP
from megatron.core.transformer.moe.moe_layer import MoELayer
from megatron.core.transformer.moe.shared_experts import SharedExpertMLP

from art.errors import ConfigurationError

from .spec import LayerFamilyInstance


def collect_layer_families(config: TransformerConfig) -> list[LayerFamilyInstance]:
    """List the kinds of layers of a whole model, on all pipeline ranks together.

    Args:
        config: A config with self attention or gated delta nets, and dense or routed MLPs.

    Returns:
        Each kind that at least one layer has: attention first, then MLPs.

    Raises:
        ConfigurationError: The config's pattern of layers cannot be read.
    """
    try:
        linear_attention, moe = layer_patterns(config)
    except (AssertionError, ValueError) as error:
        # Megatron asserts that the length of a pattern is the number of layers.
        raise ConfigurationError(f"the config's pattern of layers is invalid: {error}") from error
    shared = moe if config.moe_shared_expert_intermediate_size else [0] * config.num_layers
    families = [
        _family("standard_attention", linear_attention, 0, "self_attention", SelfAttention),
        _family("gated_delta_net_attention", linear_attention, 1, "self_attention", GatedDeltaNet),
        _family("dense_mlp", moe, 0, "mlp", MLP),
        _family("grouped_moe_mlp", moe, 1, "mlp", MoELayer),
        _family("shared_experts_mlp", shared, 1, "mlp.shared_experts", SharedExpertMLP),
    ]
    return [family for family in families if family.layer_indices]


def layer_patterns(config: TransformerConfig) -> tuple[list[int], list[int]]:
    """Mark the layers with linear attention (1), and those with routed experts (1).

    Args:
        config: A config as for :func:`collect_layer_families`.

    Returns:
        Two lists with a 0 or 1 for each layer.
    """
    no_layer = [0] * config.num_layers
    linear_attention = (
        get_linear_attention_pattern(config)
        if is_linear_attention_variant(config.experimental_attention_variant)
        else no_layer
    )
    moe = get_moe_layer_pattern(config) if config.num_moe_experts else no_layer
    return linear_attention, moe


def _family(
    key: str, pattern: list[int], value: int, module_path: str, module_type: type
) -> LayerFamilyInstance:
    return LayerFamilyInstance(
        key=key,
        layer_indices=tuple(index for index, kind in enumerate(pattern) if kind == value),
        module_path=module_path,
        module_type=module_type.__name__,
    )
