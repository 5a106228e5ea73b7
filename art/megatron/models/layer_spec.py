"""Layer specs of a decoder, built of megatron-core's own modules, without Transformer Engine.

Axes: T tokens (any number of axes), H hidden size, E experts.
"""

import torch
from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.ssm.gated_delta_net import GatedDeltaNet, GatedDeltaNetSubmodules
from megatron.core.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer import ModuleSpec, TransformerConfig
from megatron.core.transformer.attention import SelfAttention, SelfAttentionSubmodules
from megatron.core.transformer.dot_product_attention import DotProductAttention
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.identity_op import IdentityOp
from megatron.core.transformer.mlp import MLP, MLPSubmodules
from megatron.core.transformer.moe.experts import SequentialMLP
from megatron.core.transformer.moe.moe_layer import MoELayer, MoESubmodules
from megatron.core.transformer.moe.router import TopKRouter
from megatron.core.transformer.moe.shared_experts import SharedExpertMLP
from megatron.core.transformer.transformer_block import (
    TransformerBlockSubmodules,
    get_num_layers_to_build,
)
from megatron.core.transformer.transformer_layer import (
    TransformerLayer,
    TransformerLayerSubmodules,
    get_transformer_layer_offset,
)
from torch import Tensor

from art.megatron.model_support.layer_families import layer_patterns

from .norm import RMSNorm


class Router(TopKRouter):
    """Megatron's router, with logits in float32 whatever the model's dtype.

    Megatron's option for that calls Transformer Engine's matrix product, by a name that does not
    exist without Transformer Engine (megatron-core 0.16.1, ``router_gating_linear``).
    """

    def gating(self, input: Tensor) -> Tensor:
        """Compute the logits of the experts.

        Args:
            input: Hidden states ``[T, H]``.

        Returns:
            float32 logits ``[T, E]``.
        """
        hidden_TH, weight_EH = input.float(), self.weight.float()
        bias_E = None if self.bias is None else self.bias.float()
        return torch.nn.functional.linear(hidden_TH, weight_EH, bias_E)


def decoder_spec(config: TransformerConfig) -> TransformerBlockSubmodules:
    """Make the spec of the layers that this pipeline rank holds.

    Args:
        config: The config of the whole model.

    Returns:
        The spec of its decoder, with RMSNorm throughout.
    """
    linear_attention, moe = layer_patterns(config)
    first = get_transformer_layer_offset(config)
    last = first + get_num_layers_to_build(config)
    return TransformerBlockSubmodules(
        layer_specs=[
            ModuleSpec(
                module=TransformerLayer,
                submodules=TransformerLayerSubmodules(
                    input_layernorm=RMSNorm,
                    self_attention=_gated_delta_net() if linear else _self_attention(config),
                    self_attn_bda=get_bias_dropout_add,
                    pre_mlp_layernorm=RMSNorm,
                    mlp=_experts() if routed else ModuleSpec(module=MLP, submodules=_linears()),
                    mlp_bda=get_bias_dropout_add,
                ),
            )
            for linear, routed in list(zip(linear_attention, moe, strict=True))[first:last]
        ],
        layer_norm=RMSNorm,
    )


def _self_attention(config: TransformerConfig) -> ModuleSpec:
    norm = RMSNorm if config.qk_layernorm else IdentityOp
    return ModuleSpec(
        module=SelfAttention,
        params={"attn_mask_type": AttnMaskType.causal},
        submodules=SelfAttentionSubmodules(
            linear_qkv=ColumnParallelLinear,
            core_attention=DotProductAttention,
            linear_proj=RowParallelLinear,
            q_layernorm=norm,
            k_layernorm=norm,
        ),
    )


def _gated_delta_net() -> ModuleSpec:
    return ModuleSpec(
        module=GatedDeltaNet,
        submodules=GatedDeltaNetSubmodules(
            in_proj=ColumnParallelLinear,
            # Unlike the other norms, the one before the output gate is never zero-centred.
            out_norm=ModuleSpec(module=RMSNorm, params={"zero_centered": False}),
            out_proj=RowParallelLinear,
        ),
    )


def _experts() -> ModuleSpec:
    return ModuleSpec(
        module=MoELayer,
        submodules=MoESubmodules(
            experts=ModuleSpec(module=SequentialMLP, submodules=_linears()),
            shared_experts=ModuleSpec(module=SharedExpertMLP, submodules=_linears()),
            router=Router,
        ),
    )


def _linears() -> MLPSubmodules:
    return MLPSubmodules(linear_fc1=ColumnParallelLinear, linear_fc2=RowParallelLinear)
