"""Tiny models of transformers for each family, with odd sizes and random weights."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)


class Case(NamedTuple):
    """A model to build.

    Args:
        family: The key of the handler that builds it.
        model_class: transformers' class.
        config_class: The class of its config.
        options: What the config differs by from ``SIZES``.
    """

    family: str
    model_class: type[PreTrainedModel]
    config_class: type[PretrainedConfig]
    options: dict[str, Any]


# No power of two where none is needed; an odd number of tokens, to be padded.
SIZES: dict[str, Any] = {
    "num_hidden_layers": 2,
    "hidden_size": 60,
    "intermediate_size": 52,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 97,
    "max_position_embeddings": 64,
    "initializer_range": 0.1,
}
# Short enough that the tiny models' contexts have rotations on both sides of it.
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
LINEAR_ROPE = {"rope_type": "linear", "rope_theta": 5000.0, "factor": 2.0}

CASES = {
    "default_dense": Case("default_dense", Qwen2ForCausalLM, Qwen2Config, {}),
    "default_dense_mistral": Case(
        "default_dense", MistralForCausalLM, MistralConfig, {"sliding_window": None, "head_dim": 10}
    ),
    "llama3_dense": Case(
        "llama3_dense", LlamaForCausalLM, LlamaConfig, {"rope_parameters": LLAMA3_ROPE}
    ),
    "llama3_dense_tied": Case(
        "llama3_dense",
        LlamaForCausalLM,
        LlamaConfig,
        {"rope_parameters": LINEAR_ROPE, "tie_word_embeddings": True},
    ),
    "qwen3_dense": Case("qwen3_dense", Qwen3ForCausalLM, Qwen3Config, {"head_dim": 14}),
    "qwen3_dense_tied": Case(
        "qwen3_dense", Qwen3ForCausalLM, Qwen3Config, {"head_dim": 14, "tie_word_embeddings": True}
    ),
}
# The configs that each handler takes.
MODEL_TYPES = {
    "default_dense": ("llama", "mistral", "qwen2", "qwen3"),
    "llama3_dense": ("llama",),
    "qwen3_dense": ("qwen3",),
}


def hf_config(name: str) -> PretrainedConfig:
    """The config of a case."""
    case = CASES[name]
    return case.config_class(**(SIZES | case.options))


def hf_model(name: str) -> PreTrainedModel:
    """transformers' model of a case. Its weights are the same each time."""
    torch.manual_seed(0)
    model = CASES[name].model_class(hf_config(name)).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:  # norms and biases, which start as ones and zeros
            parameter.data += 0.2 * torch.randn_like(parameter)
    return model


def save(name: str, folder: Path, *, shard_size: str = "40KB") -> PreTrainedModel:
    """Save a case's model as a checkpoint of several files, and return it."""
    model = hf_model(name)
    model.save_pretrained(folder, max_shard_size=shard_size)
    return model
