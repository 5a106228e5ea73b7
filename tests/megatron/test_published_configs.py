"""Handlers read every field of the configs of the models that the registry lists."""

from typing import Any

import pytest

from art.errors import ConfigurationError
from art.megatron.model_support import (
    DEFAULT_DENSE_SPEC,
    ModelSupportHandler,
    get_model_support_handler_for_spec,
    get_model_support_spec,
)

from .published_configs import PUBLISHED
from .tiny_models import FAMILIES


def handler_of(name: str) -> ModelSupportHandler:
    spec = get_model_support_spec(name, allow_unvalidated_arch=True)
    assert spec.key == PUBLISHED[name][0]
    return get_model_support_handler_for_spec(spec)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_config_is_read(name: str) -> None:
    config = PUBLISHED[name][1]
    text = config.get("text_config", config)
    architecture = handler_of(name).read_config(config)
    transformer = architecture.transformer
    assert architecture.vocab_size == text["vocab_size"]
    assert architecture.max_sequence_length == text["max_position_embeddings"]
    assert architecture.tied_embeddings is config["tie_word_embeddings"]
    assert transformer["num_layers"] == text["num_hidden_layers"]
    assert transformer["num_query_groups"] == text["num_key_value_heads"]
    head_dim = text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"]
    assert transformer["kv_channels"] == head_dim
    rope = text.get("rope_parameters", text)
    assert architecture.rope.theta == rope["rope_theta"]
    assert architecture.rope.rotated == head_dim * rope.get("partial_rotary_factor", 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_a_published_config(family: str) -> None:
    assert family in {key for key, _ in PUBLISHED.values()}


def test_an_unregistered_model_is_of_the_default_family_when_asked_for() -> None:
    spec = get_model_support_spec("Qwen/Qwen2.5-7B", allow_unvalidated_arch=True)
    assert spec is DEFAULT_DENSE_SPEC


def test_the_extra_fields_of_unsloths_gpt_oss_have_no_effect() -> None:
    handler, config = handler_of("openai/gpt-oss-20b"), PUBLISHED["openai/gpt-oss-20b"][1]
    copy = config | {"unsloth_fixed": True, "pad_token_id": 200017, "torch_dtype": "bfloat16"}
    assert handler.read_config(copy) == handler.read_config(config)


def without(config: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name not in names}


_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}

# What published configs and copies of them say, and an equal config without it.
SAYING_THE_SAME: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "Qwen2.5's base and Math models": ("Qwen/Qwen2.5-7B", {"use_mrope": False}, {}),
    "copies by Unsloth": (
        "meta-llama/Llama-3.1-8B-Instruct",
        {"unsloth_version": "2026.4.2", "unsloth_fixed": True},
        {},
    ),
    "DeepSeek-R1-0528-Qwen3-8B": (
        "Qwen/Qwen3-0.6B",
        {"rope_scaling": _YARN | {"attn_factor": 0.8782488562869419}},
        {"rope_scaling": _YARN},
    ),
    "Qwen2.5's advice for long texts": (
        "Qwen/Qwen2.5-7B",
        {"rope_scaling": without(_YARN, "rope_type") | {"type": "yarn"}},
        {"rope_scaling": _YARN},
    ),
}


@pytest.mark.parametrize("case", SAYING_THE_SAME)
def test_fields_that_change_nothing_are_accepted(case: str) -> None:
    name, fields, same = SAYING_THE_SAME[case]
    handler, config = handler_of(name), PUBLISHED[name][1]
    architecture = handler.read_config(config | fields)
    assert architecture == handler.read_config(config | same)
    if "rope_scaling" in same:
        assert architecture != handler.read_config(config)


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("method", ["mxfp4", "fp8"])
def test_quantised_checkpoints_are_refused_with_a_way_out(name: str, method: str) -> None:
    config = PUBLISHED[name][1] | {"quantization_config": {"quant_method": method}}
    with pytest.raises(ConfigurationError, match=r"quantization_config.*dequantize=True"):
        handler_of(name).read_config(config)


# Fields of published configs that turn a feature off: any other value is refused.
SWITCHES: list[tuple[str, str, object]] = [
    ("HuggingFaceTB/SmolLM2-135M-Instruct", "rope_interleaved", True),
    ("Qwen/Qwen2.5-7B", "use_mrope", True),
    ("Qwen/Qwen3-Coder-30B-A3B-Instruct", "qkv_bias", True),
    ("Qwen/Qwen3-Coder-30B-A3B-Instruct", "use_qk_norm", False),
    ("Qwen/Qwen3-Coder-30B-A3B-Instruct", "shared_expert_intermediate_size", 64),
    ("Qwen/Qwen3.6-27B", "output_gate_type", "sigmoid"),
    ("Qwen/Qwen3.6-27B", "mlp_only_layers", [1]),
]


@pytest.mark.parametrize(("name", "field", "value"), SWITCHES)
def test_what_a_published_config_rules_out_is_refused(name: str, field: str, value: object) -> None:
    config = dict(PUBLISHED[name][1])
    if "text_config" in config:
        config["text_config"] = config["text_config"] | {field: value}
    else:
        config[field] = value
    with pytest.raises(ConfigurationError, match=field):
        handler_of(name).read_config(config)
