"""Models of transformers for ``megatron_weights.py``, of a given size.

Layers have the proportions of published models; their number depends on the size.
"""

from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file

_DENSE: dict[str, Any] = {
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 32_000,
    "max_position_embeddings": 4096,
}
_EXPERTS: dict[str, Any] = {
    "hidden_size": 1024,
    "moe_intermediate_size": 384,
    "num_experts": 64,
    "num_experts_per_tok": 8,
    "norm_topk_prob": True,
}
_GATED_DELTA_NET: dict[str, Any] = {
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
}
# For each family: transformers' model, the fields of its config, and the number of layers after
# which their kinds repeat.
FAMILIES: dict[str, tuple[str, dict[str, Any], int]] = {
    "llama3_dense": ("LlamaForCausalLM", _DENSE, 1),
    "qwen3_dense": ("Qwen3ForCausalLM", _DENSE, 1),
    "qwen3_moe": ("Qwen3MoeForCausalLM", _DENSE | _EXPERTS, 1),
    "qwen3_5_dense": ("Qwen3_5ForCausalLM", _DENSE | _GATED_DELTA_NET, 4),
    "qwen3_5_moe": (
        "Qwen3_5MoeForCausalLM",
        _DENSE | _EXPERTS | _GATED_DELTA_NET | {"shared_expert_intermediate_size": 384},
        4,
    ),
}


def make_checkpoint(family: str, size: int, folder: Path, *, stacked: bool) -> int:
    """Write a checkpoint of random weights in bfloat16, in files of at most 5 GB.

    Args:
        family: A key of ``FAMILIES``.
        size: The approximate size, in bytes.
        folder: The folder to create.
        stacked: True to write one tensor for the gate and up of all experts of a layer and one for
            their down, in one file; False for three tensors for each expert.

    Returns:
        The size of its tensors, in bytes.
    """
    period = FAMILIES[family][2]
    one, two = (_bytes_of(family, layers) for layers in (period, 2 * period))
    periods = max(1, round((size - 2 * one + two) / (two - one)))
    model = _build(family, periods * period)
    if stacked:
        model.config.save_pretrained(folder)
        save_file(dict(model.state_dict()), folder / "model.safetensors")
    else:
        model.save_pretrained(folder, max_shard_size="5GB")
    return sum(parameter.nbytes for parameter in model.parameters())


def _build(family: str, layers: int) -> Any:
    name, fields, _ = FAMILIES[family]
    model_class = getattr(transformers, name)
    config = model_class.config_class(**fields, num_hidden_layers=layers, dtype="bfloat16")
    return model_class._from_config(config, dtype=torch.bfloat16)


def _bytes_of(family: str, layers: int) -> int:
    with torch.device("meta"):
        return sum(parameter.nbytes for parameter in _build(family, layers).parameters())
