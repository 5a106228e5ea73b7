from typing import Literal

import torch

# The fields that art and its tests read or set.
class TransformerConfig:
    num_layers: int
    hidden_size: int
    num_attention_heads: int
    num_query_groups: int | None
    softmax_scale: float | None
    softmax_type: Literal["vanilla", "off-by-one", "learnable"]
    kv_channels: int | None
    normalization: Literal["LayerNorm", "RMSNorm"]
    layernorm_zero_centered_gamma: bool
    gated_linear_unit: bool
    glu_linear_offset: float
    add_bias_linear: bool
    add_qkv_bias: bool
    qk_layernorm: bool
    hidden_dropout: float
    multi_latent_attention: bool
    attention_output_gate: bool
    experimental_attention_variant: Literal["gated_delta_net", "dsa"] | None
    linear_attention_freq: int | list[int] | None
    linear_num_key_heads: int | None
    linear_key_head_dim: int | None
    linear_num_value_heads: int | None
    linear_value_head_dim: int | None
    num_moe_experts: int | None
    moe_layer_freq: int | list[int]
    moe_shared_expert_intermediate_size: int | None
    moe_token_dispatcher_type: Literal["allgather", "alltoall", "flex"]
    tensor_model_parallel_size: int
    pipeline_model_parallel_size: int
    expert_model_parallel_size: int
    expert_tensor_parallel_size: int | None
    sequence_parallel: bool
    params_dtype: torch.dtype
    pipeline_dtype: torch.dtype
    bf16: bool
    fp16: bool
    use_cpu_initialization: bool
    batch_p2p_comm: bool
    perform_initialization: bool
    transformer_impl: Literal["local", "transformer_engine", "inference_optimized"]

    def __init__(
        self,
        *,
        num_layers: int = ...,
        hidden_size: int = ...,
        num_attention_heads: int = ...,
        num_query_groups: int | None = ...,
        softmax_scale: float | None = ...,
        softmax_type: Literal["vanilla", "off-by-one", "learnable"] = ...,
        kv_channels: int | None = ...,
        normalization: Literal["LayerNorm", "RMSNorm"] = ...,
        layernorm_zero_centered_gamma: bool = ...,
        gated_linear_unit: bool = ...,
        glu_linear_offset: float = ...,
        add_bias_linear: bool = ...,
        add_qkv_bias: bool = ...,
        qk_layernorm: bool = ...,
        hidden_dropout: float = ...,
        multi_latent_attention: bool = ...,
        attention_output_gate: bool = ...,
        experimental_attention_variant: Literal["gated_delta_net", "dsa"] | None = ...,
        linear_attention_freq: int | list[int] | None = ...,
        linear_num_key_heads: int | None = ...,
        linear_key_head_dim: int | None = ...,
        linear_num_value_heads: int | None = ...,
        linear_value_head_dim: int | None = ...,
        num_moe_experts: int | None = ...,
        moe_layer_freq: int | list[int] = ...,
        moe_shared_expert_intermediate_size: int | None = ...,
        moe_token_dispatcher_type: Literal["allgather", "alltoall", "flex"] = ...,
        tensor_model_parallel_size: int = ...,
        pipeline_model_parallel_size: int = ...,
        expert_model_parallel_size: int = ...,
        expert_tensor_parallel_size: int | None = ...,
        sequence_parallel: bool = ...,
        params_dtype: torch.dtype = ...,
        pipeline_dtype: torch.dtype = ...,
        bf16: bool = ...,
        fp16: bool = ...,
        use_cpu_initialization: bool = ...,
        batch_p2p_comm: bool = ...,
        perform_initialization: bool = ...,
        transformer_impl: Literal["local", "transformer_engine", "inference_optimized"] = ...,
    ) -> None: ...
