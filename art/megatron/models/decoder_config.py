"""Readers of the config fields that families share, which give megatron's arguments."""

from collections.abc import Mapping
from typing import Any

from torch.nn.functional import silu

from .architecture import Architecture
from .hf_config import ConfigFields
from .rope import read_rope


def read_attention(fields: ConfigFields) -> dict[str, Any]:
    """Read the fields that the layers of every family have: sizes, heads and norms.

    Args:
        fields: The fields of a Hugging Face config.

    Returns:
        Arguments of ``TransformerConfig``.

    Raises:
        ConfigurationError: A field is missing or has a value that is not supported.
    """
    fields.require("hidden_act", "silu")
    hidden, heads = fields.integer("hidden_size"), fields.integer("num_attention_heads")
    groups = fields.integer("num_key_value_heads")
    if heads % groups:
        raise fields.unsupported(
            "num_key_value_heads", f"it must divide num_attention_heads={heads}", groups
        )
    return {
        "num_layers": fields.integer("num_hidden_layers"),
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_query_groups": groups,
        # Qwen2 has no head_dim.
        "kv_channels": fields.integer("head_dim") if "head_dim" in fields else hidden // heads,
        "layernorm_epsilon": fields.number("rms_norm_eps"),
        "attention_dropout": fields.number("attention_dropout"),
        "activation_func": silu,
        "add_bias_linear": False,
    }


def read_sliding_window(fields: ConfigFields, layers: int) -> dict[str, Any]:
    """Read the fields about sliding windows, for a family that lists them in ``layer_types``.

    Args:
        fields: The fields of a Hugging Face config.
        layers: Number of layers.

    Returns:
        Arguments of ``TransformerConfig``.

    Raises:
        ConfigurationError: A field is missing or has a value that is not supported.
    """
    types = fields.layer_types(layers, ("full_attention", "sliding_attention"))
    if "sliding_attention" not in types:
        fields.without_effect("sliding_window")
        return {}
    return {
        # Hugging Face counts the token itself, megatron only those before it.
        "window_size": (fields.integer("sliding_window") - 1, 0),
        "window_attn_skip_freq": [int(kind == "sliding_attention") for kind in types],
    }


def refuse_sliding_window(fields: ConfigFields, layers: int) -> None:
    """Read the fields about sliding windows and refuse any.

    Args:
        fields: The fields of a Hugging Face config.
        layers: Number of layers.

    Raises:
        ConfigurationError: A layer has a sliding window.
    """
    fields.require("use_sliding_window", False, optional=True)
    fields.require("sliding_window", None, optional=True)
    if "layer_types" in fields:
        fields.layer_types(layers, ["full_attention"])


def read_experts(
    fields: ConfigFields, *, normalized: bool, intermediate_size: str = "moe_intermediate_size"
) -> dict[str, Any]:
    """Read the fields that every family with routed experts has.

    Args:
        fields: The fields of a Hugging Face config.
        normalized: True if the probabilities of the chosen experts sum to 1.
        intermediate_size: The name of the field with an expert's intermediate size.

    Returns:
        Arguments of ``TransformerConfig``.

    Raises:
        ConfigurationError: A field is missing or has a value that is not supported.
    """
    # transformers renames the field for some families.
    name = "num_local_experts" if "num_local_experts" in fields else "num_experts"
    experts, chosen = fields.integer(name), fields.integer("num_experts_per_tok")
    if chosen > experts:
        raise fields.unsupported("num_experts_per_tok", f"there are {experts} experts", chosen)
    if chosen == 1 and normalized:
        reason = (
            "the probability of a single expert would always be 1, so its router learns nothing"
        )
        raise fields.unsupported("num_experts_per_tok", reason, chosen)
    return {
        "num_moe_experts": experts,
        "moe_router_pre_softmax": not normalized,
        "moe_router_topk": chosen,
        "moe_ffn_hidden_size": fields.integer(intermediate_size),
        "moe_router_dtype": "fp32",
        # Load balancing is for pre-training; it would bias the policy gradient.
        "moe_router_load_balancing_type": "none",
    }


def finish(
    fields: ConfigFields,
    transformer: Mapping[str, Any],
    *,
    partial_rotary: bool = False,
    tensor_prefix: str = "model.",
) -> Architecture:
    """Read the fields that are not about layers, and refuse the rest.

    Args:
        fields: The remaining fields of a Hugging Face config.
        transformer: Arguments of ``TransformerConfig``.
        partial_rotary: True if the family may rotate only a part of each head.
        tensor_prefix: See :class:`Architecture`.

    Returns:
        The model.

    Raises:
        ConfigurationError: A field is missing, has a value that is not supported, or is unknown.
    """
    rope = read_rope(fields, transformer["kv_channels"], partial=partial_rotary)
    architecture = Architecture(
        transformer=transformer,
        vocab_size=fields.integer("vocab_size"),
        max_sequence_length=fields.integer("max_position_embeddings"),
        rope=rope,
        tied_embeddings=fields.flag("tie_word_embeddings"),
        tensor_prefix=tensor_prefix,
    )
    fields.finish()
    return architecture
