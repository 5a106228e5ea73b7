from typing import Literal

class TransformerConfig:
    num_layers: int
    normalization: Literal["LayerNorm", "RMSNorm"]
    gated_linear_unit: bool
    add_qkv_bias: bool
    qk_layernorm: bool
    multi_latent_attention: bool
    attention_output_gate: bool
    experimental_attention_variant: Literal["gated_delta_net", "dsa"] | None
    num_moe_experts: int | None
    moe_shared_expert_intermediate_size: int | None
