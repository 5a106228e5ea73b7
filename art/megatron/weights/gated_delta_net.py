"""Layout of gated delta nets (arXiv 2412.06464), by the names of Hugging Face's Qwen3.5.

Axes of the shapes: H hidden size, N value heads, K features of all keys, W features of all values,
C width of the convolution.
"""

from art.megatron.models.architecture import Architecture

from .decoder import whole
from .layout import Layout, Part
from .mapping import Parameter


def gated_delta_net(architecture: Architecture) -> tuple[Parameter, ...]:
    """Map a gated delta net, and the norm before it.

    Megatron's ``in_proj`` is queries, keys, values, output gates, betas and alphas,
    ``[K + K + W + W + N + N, H]``, each sharded over the ranks by heads. Hugging Face keeps the
    first three in one tensor and the others in three.

    Args:
        architecture: The model.

    Returns:
        The parameters of a layer.
    """
    config = architecture.transformer
    hf = f"{architecture.tensor_prefix}layers.{{layer}}."
    linear = f"{hf}linear_attn."
    hidden, heads = config["hidden_size"], config["linear_num_value_heads"]
    keys = config["linear_num_key_heads"] * config["linear_key_head_dim"]
    values = heads * config["linear_value_head_dim"]
    kernel = config["linear_conv_kernel_dim"]
    in_proj = (
        *_query_key_value(f"{linear}in_proj_qkv.weight", keys, values, hidden),
        Part(f"{linear}in_proj_z.weight", (values, hidden)),
        Part(f"{linear}in_proj_b.weight", (heads, hidden)),
        Part(f"{linear}in_proj_a.weight", (heads, hidden)),
    )
    convolution = _query_key_value(f"{linear}conv1d.weight", keys, values, 1, kernel)
    out_proj = Part(f"{linear}out_proj.weight", (hidden, values))
    return (
        whole("input_layernorm.weight", f"{hf}input_layernorm.weight", hidden),
        Parameter("self_attention.in_proj.weight", Layout(in_proj)),
        Parameter("self_attention.conv1d.weight", Layout(convolution)),
        Parameter("self_attention.dt_bias", Layout((Part(f"{linear}dt_bias", (heads,)),))),
        Parameter("self_attention.A_log", Layout((Part(f"{linear}A_log", (heads,)),))),
        whole(
            "self_attention.out_norm.weight",
            f"{linear}norm.weight",
            config["linear_value_head_dim"],
        ),
        Parameter("self_attention.out_proj.weight", Layout((out_proj,), dim=1)),
    )


def _query_key_value(tensor: str, keys: int, values: int, *columns: int) -> tuple[Part, ...]:
    shape = (2 * keys + values, *columns)
    return tuple(
        Part(tensor, shape, rows=rows)
        for rows in (range(keys), range(keys, 2 * keys), range(2 * keys, 2 * keys + values))
    )
