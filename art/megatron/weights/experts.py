"""Layouts of routed and shared experts.

Axes of the shapes: E experts, H hidden size, F intermediate size of an expert.
"""

from art.megatron.models.architecture import Architecture

from .decoder import swiglu, whole
from .layout import Layout, Part
from .mapping import Parameter


def routed_experts(architecture: Architecture, *, stacked: bool) -> tuple[Parameter, ...]:
    """Map a router and its experts, and the norm before them.

    Checkpoints keep the experts one by one, ``mlp.experts.3.down_proj.weight`` ``[H, F]``, or
    stacked: ``mlp.experts.down_proj`` ``[E, H, F]`` and ``mlp.experts.gate_up_proj``
    ``[E, 2 * F, H]``. Both are read.

    Args:
        architecture: The model.
        stacked: True to write them stacked.

    Returns:
        The parameters of a layer.
    """
    config = architecture.transformer
    hf = f"{architecture.tensor_prefix}layers.{{layer}}."
    hidden, experts = config["hidden_size"], config["num_moe_experts"]
    intermediate = config["moe_ffn_hidden_size"]
    one_by_one = swiglu("", f"{hf}mlp.experts.{{expert}}", hidden, intermediate)
    gate_up, down = f"{hf}mlp.experts.gate_up_proj", f"{hf}mlp.experts.down_proj"
    rows = (2 * intermediate, hidden)
    together = (
        Layout(
            (
                Part(gate_up, rows, rows=range(intermediate), experts=experts),
                Part(gate_up, rows, rows=range(intermediate, 2 * intermediate), experts=experts),
            )
        ),
        Layout((Part(down, (hidden, intermediate), experts=experts),), dim=1),
    )
    parameters = []
    for single, stack in zip(one_by_one, together, strict=True):
        written, also_read = (stack, single.layout) if stacked else (single.layout, stack)
        name = f"mlp.experts.local_experts.{{expert}}{single.name}"
        parameters.append(Parameter(name, written, of_experts=True, alternative=also_read))
    return (
        whole("pre_mlp_layernorm.weight", f"{hf}post_attention_layernorm.weight", hidden),
        whole("mlp.router.weight", f"{hf}mlp.gate.weight", experts, hidden),
        *parameters,
    )


def shared_expert(architecture: Architecture) -> tuple[Parameter, ...]:
    """Map a shared expert, which every token passes through, and its gate.

    Args:
        architecture: The model.

    Returns:
        The parameters of a layer.
    """
    config = architecture.transformer
    hf = f"{architecture.tensor_prefix}layers.{{layer}}.mlp.shared_expert"
    hidden = config["hidden_size"]
    intermediate = config["moe_shared_expert_intermediate_size"]
    return (
        *swiglu("mlp.shared_experts", hf, hidden, intermediate),
        whole("mlp.shared_experts.gate_weight", f"{hf}_gate.weight", 1, hidden),
    )
