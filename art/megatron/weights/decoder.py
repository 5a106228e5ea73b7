"""Layouts that the decoders of all families share, by the names of Hugging Face's Llama.

Axes of the shapes: V vocabulary, H hidden size, F intermediate size of an MLP, N heads, G groups of
heads that share a key and a value, D dimension of a head.
"""

from collections.abc import Sequence

from art.megatron.models.architecture import Architecture

from .layout import Layout, Part
from .mapping import Parameter, WeightMapping


def decoder_mapping(
    architecture: Architecture,
    layers: Sequence[tuple[Parameter, ...]],
    *,
    unused: tuple[str, ...] = (),
) -> WeightMapping:
    """Map a whole model: its layers, the embedding before and the output layer after them.

    Args:
        architecture: The model.
        layers: The parameters of each layer.
        unused: Prefixes of further tensors that a checkpoint may hold.

    Returns:
        The mapping.
    """
    hidden = architecture.transformer["hidden_size"]
    vocabulary = (architecture.vocab_size, hidden)
    prefix = architecture.tensor_prefix
    embedding = Layout((Part(f"{prefix}embed_tokens.weight", vocabulary),), padded=True)
    output = Layout((Part("lm_head.weight", vocabulary),), padded=True)
    tied = architecture.tied_embeddings
    norm = whole("decoder.final_layernorm.weight", f"{prefix}norm.weight", hidden)
    return WeightMapping(
        embedding=(Parameter("embedding.word_embeddings.weight", embedding),),
        layers=tuple(layers),
        output=(norm,) if tied else (norm, Parameter("output_layer.weight", output)),
        tied_output=(Parameter("output_layer.weight", embedding),) if tied else (),
        experts=architecture.transformer.get("num_moe_experts") or 0,
        copies=(("lm_head.weight", f"{prefix}embed_tokens.weight"),) if tied else (),
        unused=unused,
    )


def attention(architecture: Architecture) -> tuple[Parameter, ...]:
    """Map grouped-query attention, and the norm before it.

    Megatron keeps a group's queries, its key and its value together: ``linear_qkv`` is
    ``[G * (N / G + 2) * D, H]``. With an output gate, Hugging Face's ``q_proj`` interleaves the
    query and the gate of each head; megatron keeps the queries of a group, then the gates.

    Args:
        architecture: The model.

    Returns:
        The parameters of a layer.
    """
    config = architecture.transformer
    hidden, head_dim = config["hidden_size"], config["kv_channels"]
    heads, groups = config["num_attention_heads"], config["num_query_groups"]
    of_group = heads // groups
    gated = config.get("attention_output_gate", False)
    order = (*range(0, 2 * of_group, 2), *range(1, 2 * of_group, 2)) if gated else (0,)
    rows = {"q": heads * head_dim * (1 + gated), "k": groups * head_dim, "v": groups * head_dim}
    hf = f"{architecture.tensor_prefix}layers.{{layer}}."

    def qkv(kind: str, *columns: int) -> Layout:
        return Layout(
            tuple(
                Part(
                    f"{hf}self_attn.{name}_proj.{kind}",
                    (size, *columns),
                    order=order if name == "q" else (0,),
                )
                for name, size in rows.items()
            ),
            groups=groups,
        )

    parameters = [
        whole("input_layernorm.weight", f"{hf}input_layernorm.weight", hidden),
        Parameter("self_attention.linear_qkv.weight", qkv("weight", hidden)),
        Parameter(
            "self_attention.linear_proj.weight",
            Layout((Part(f"{hf}self_attn.o_proj.weight", (hidden, heads * head_dim)),), dim=1),
        ),
    ]
    if config.get("add_qkv_bias") or config["add_bias_linear"]:
        parameters.append(Parameter("self_attention.linear_qkv.bias", qkv("bias")))
    if config["add_bias_linear"]:
        bias = whole("self_attention.linear_proj.bias", f"{hf}self_attn.o_proj.bias", hidden)
        parameters.append(bias)
    if config.get("softmax_type") == "learnable":
        # One number per head, which takes part in the softmax over the head's scores.
        sinks = Layout((Part(f"{hf}self_attn.sinks", (heads,)),))
        parameters.append(Parameter("self_attention.core_attention.softmax_offset", sinks))
    if config.get("qk_layernorm"):
        parameters += [
            whole(
                f"self_attention.{name}_layernorm.weight",
                f"{hf}self_attn.{name}_norm.weight",
                head_dim,
            )
            for name in "qk"
        ]
    return tuple(parameters)


def dense_mlp(architecture: Architecture) -> tuple[Parameter, ...]:
    """Map a SwiGLU MLP, and the norm before it.

    Args:
        architecture: The model.

    Returns:
        The parameters of a layer.
    """
    config = architecture.transformer
    hf = f"{architecture.tensor_prefix}layers.{{layer}}."
    hidden = config["hidden_size"]
    return (
        whole("pre_mlp_layernorm.weight", f"{hf}post_attention_layernorm.weight", hidden),
        *swiglu("mlp", f"{hf}mlp", hidden, config["ffn_hidden_size"]),
    )


def swiglu(
    name: str, hf: str, hidden: int, intermediate: int, *, of_experts: bool = False
) -> tuple[Parameter, ...]:
    """Map a gate, an up and a down projection.

    Args:
        name: Megatron's name of the module.
        hf: Hugging Face's name of it.
        hidden: The hidden size H.
        intermediate: The intermediate size F.
        of_experts: True if each routed expert is such an MLP.

    Returns:
        Its parameters.
    """
    gate_up = tuple(
        Part(f"{hf}.{half}_proj.weight", (intermediate, hidden)) for half in ("gate", "up")
    )
    down = Part(f"{hf}.down_proj.weight", (hidden, intermediate))
    return (
        Parameter(f"{name}.linear_fc1.weight", Layout(gate_up), of_experts),
        Parameter(f"{name}.linear_fc2.weight", Layout((down,), dim=1), of_experts),
    )


def whole(name: str, hf: str, *shape: int) -> Parameter:
    """Map a parameter that every rank holds whole.

    Args:
        name: Megatron's name of it.
        hf: Hugging Face's name of it.
        shape: Its shape.

    Returns:
        The parameter.
    """
    return Parameter(name, Layout((Part(hf, shape),), dim=None))
