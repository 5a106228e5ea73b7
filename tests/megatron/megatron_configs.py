"""Megatron's config of each family, written by hand, not by the handler."""

import torch


def quick_gelu(x: torch.Tensor) -> torch.Tensor:
    """Compute the sigmoid approximation of GELU, as megatron's and OpenAI's code do."""
    return x * torch.sigmoid(1.702 * x)


# RMSNorm, SwiGLU, four heads of which two share a key.
TINY: dict[str, object] = {
    "num_layers": 2,
    "hidden_size": 32,
    "ffn_hidden_size": 48,
    "num_attention_heads": 4,
    "num_query_groups": 2,
    "kv_channels": 8,
    "normalization": "RMSNorm",
    "gated_linear_unit": True,
    "activation_func": torch.nn.functional.silu,
    "add_bias_linear": False,
    "use_cpu_initialization": True,
    "transformer_impl": "local",
}
QWEN3_MOE: dict[str, object] = {
    "qk_layernorm": True,
    "num_moe_experts": 4,
    "moe_router_topk": 2,
    "moe_ffn_hidden_size": 16,
}
QWEN3_5: dict[str, object] = {
    "num_layers": 4,
    "qk_layernorm": True,
    "attention_output_gate": True,
    "experimental_attention_variant": "gated_delta_net",
    "linear_attention_freq": 4,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
GPT_OSS: dict[str, object] = {
    "num_moe_experts": 4,
    "moe_router_topk": 2,
    "moe_ffn_hidden_size": 16,
    "add_bias_linear": True,
    "activation_func": quick_gelu,
    "activation_func_clamp_value": 7.0,
    "glu_linear_offset": 1.0,
    "softmax_type": "learnable",
    "window_size": (127, 0),
    "window_attn_skip_freq": 2,
}
# The config of each family, as its published models have it, at a size that builds in a moment.
CONFIGS: dict[str, dict[str, object]] = {
    "default_dense": {"add_qkv_bias": True},
    "llama3_dense": {},
    "qwen3_dense": {"qk_layernorm": True},
    "qwen3_moe": QWEN3_MOE,
    "qwen3_5_dense": QWEN3_5,
    "qwen3_5_moe": QWEN3_MOE | QWEN3_5 | {"moe_shared_expert_intermediate_size": 24},
    "gpt_oss": GPT_OSS,
}
