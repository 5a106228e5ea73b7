"""Tiny models of transformers for each family, with odd sizes and random weights."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import (
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3_5Config,
    Qwen3_5ForCausalLM,
    Qwen3_5ForConditionalGeneration,
    Qwen3_5MoeForCausalLM,
    Qwen3_5MoeTextConfig,
    Qwen3_5TextConfig,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from art.megatron.model_support import (
    DEFAULT_DENSE_SPEC,
    ModelSupportHandler,
    ModelSupportSpec,
    get_model_support_handler_for_spec,
    list_model_support_specs,
)

SPECS = {spec.key: spec for spec in (DEFAULT_DENSE_SPEC, *list_model_support_specs())}
FAMILIES = tuple(SPECS)
FUSED_EXPERTS = ("mlp.experts.gate_up_proj", "mlp.experts.down_proj")


class Case(NamedTuple):
    """A model to build.

    Args:
        family: The key of the handler that builds it.
        model_class: transformers' class.
        config_class: The class of its config.
        options: The config's differences from ``SIZES``.
        parameters: The names of what PEFT adapts by parameter, not being a linear module there.
        adapted: True if adapters of it are trained.
        biased_experts: True if its experts have biases.
    """

    family: str
    model_class: type[PreTrainedModel]
    config_class: type[PretrainedConfig]
    options: dict[str, Any]
    parameters: tuple[str, ...] = ()
    adapted: bool = True
    biased_experts: bool = False

    @property
    def spec(self) -> ModelSupportSpec:
        """The family's spec."""
        return SPECS[self.family]

    @property
    def handler(self) -> ModelSupportHandler:
        """The family's handler."""
        return get_model_support_handler_for_spec(self.spec)

    @property
    def experts(self) -> bool:
        """True if the model has routed experts."""
        return self.spec.is_moe


# No power of two where none is needed; an odd number of tokens, to be padded.
SIZES: dict[str, Any] = {
    "num_hidden_layers": 2,
    "hidden_size": 60,
    "intermediate_size": 52,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 97,
    "max_position_embeddings": 64,
    # With larger weights the gated delta nets of Qwen3.5 amplify rounding: at 0.1 transformers'
    # own float32 logits are 6e-5 away from its float64 ones, at 0.05 they are 4e-6 away.
    "initializer_range": 0.05,
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
YARN_ROPE = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "beta_fast": 8.0,
    "original_max_position_embeddings": 16,
}
LINEAR_ROPE = {"rope_type": "linear", "rope_theta": 5000.0, "factor": 2.0}
QWEN3_MOE = {
    "head_dim": 14,
    "num_experts": 6,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 20,
}
# Half of each head is rotated: 5 of its pairs of dimensions. Six value heads, two key heads.
QWEN3_5 = {
    "num_hidden_layers": 4,
    "head_dim": 20,
    "layer_types": ["linear_attention", "linear_attention", "full_attention", "linear_attention"],
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.5,
        "mrope_section": [3, 1, 1],
        "mrope_interleaved": True,
    },
    "linear_conv_kernel_dim": 3,
    "linear_key_head_dim": 7,
    "linear_value_head_dim": 9,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 6,
}
# Of two layers the first has a window. The limit clamps one gate in eight, and more of the ups.
# With a larger theta YaRN's ramp has no pair of dimensions on it, and truncating it no effect.
GPT_OSS = {
    "head_dim": 14,
    "num_local_experts": 6,
    "num_experts_per_tok": 3,
    "sliding_window": 7,
    "swiglu_limit": 0.5,
    "rope_parameters": YARN_ROPE | {"rope_theta": 100.0, "beta_slow": 1.0, "truncate": False},
}
VISION = {
    "depth": 1,
    "hidden_size": 32,
    "num_heads": 2,
    "intermediate_size": 16,
    "out_hidden_size": 60,
    "num_position_embeddings": 16,
}

CASES = {
    "default_dense": Case("default_dense", Qwen2ForCausalLM, Qwen2Config, {}),
    "default_dense_mistral": Case(
        "default_dense",
        MistralForCausalLM,
        MistralConfig,
        {"sliding_window": None, "head_dim": 10},
        adapted=False,
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
        "qwen3_dense",
        Qwen3ForCausalLM,
        Qwen3Config,
        {"head_dim": 14, "tie_word_embeddings": True, "rope_parameters": YARN_ROPE},
    ),
    "qwen3_moe": Case(
        "qwen3_moe", Qwen3MoeForCausalLM, Qwen3MoeConfig, QWEN3_MOE | {"norm_topk_prob": True}
    ),
    "qwen3_moe_mixed": Case(
        "qwen3_moe",
        Qwen3MoeForCausalLM,
        Qwen3MoeConfig,
        QWEN3_MOE | {"norm_topk_prob": False, "mlp_only_layers": [1], "num_hidden_layers": 4},
        # PEFT takes the names of experts for those of their parameters alone.
        parameters=("mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight"),
    ),
    "qwen3_5_dense": Case("qwen3_5_dense", Qwen3_5ForCausalLM, Qwen3_5TextConfig, QWEN3_5),
    "qwen3_5_dense_vision": Case(
        "qwen3_5_dense",
        Qwen3_5ForConditionalGeneration,
        Qwen3_5Config,
        {"text_config": SIZES | QWEN3_5, "vision_config": VISION},
        adapted=False,
    ),
    "qwen3_5_moe": Case(
        "qwen3_5_moe",
        Qwen3_5MoeForCausalLM,
        Qwen3_5MoeTextConfig,
        QWEN3_5 | QWEN3_MOE | {"head_dim": 20, "shared_expert_intermediate_size": 28},
        parameters=FUSED_EXPERTS,
    ),
    "gpt_oss": Case(
        "gpt_oss",
        GptOssForCausalLM,
        GptOssConfig,
        GPT_OSS,
        parameters=FUSED_EXPERTS,
        biased_experts=True,
    ),
}


def family_handler(key: str) -> ModelSupportHandler:
    """Get the handler of a family by its key."""
    return get_model_support_handler_for_spec(SPECS[key])


def hf_config(name: str) -> PretrainedConfig:
    """Make the config of a case."""
    case = CASES[name]
    sizes = {} if "text_config" in case.options else SIZES
    return case.config_class(**(sizes | case.options))


def hf_model(name: str) -> PreTrainedModel:
    """Make transformers' model of a case. Its weights are the same each time."""
    torch.manual_seed(0)
    model = CASES[name].model_class(hf_config(name)).eval()
    for path, parameter in model.named_parameters():
        # Norms and biases, which start as ones and zeros; of stacked experts biases are matrices.
        if parameter.ndim == 1 or path.endswith("_bias"):
            parameter.data += 0.2 * torch.randn_like(parameter)
    return model


def save(name: str, folder: Path, *, shard_size: str = "40KB") -> PreTrainedModel:
    """Save a case's model as a checkpoint of several files, and return it."""
    model = hf_model(name)
    model.save_pretrained(folder, max_shard_size=shard_size)
    return model
