"""The layer families of a config, compared with the layers that megatron builds from it."""

from collections import defaultdict

import pytest

from art.errors import ConfigurationError

from .conftest import BuildModel, FamilyConfig
from .megatron_configs import CONFIGS
from .tiny_models import FAMILIES, family_handler

# The layer family of each module type of megatron, by its path in a layer.
BUILT_AS = {
    ("self_attention", "SelfAttention"): "standard_attention",
    ("self_attention", "GatedDeltaNet"): "gated_delta_net_attention",
    ("mlp", "MLP"): "dense_mlp",
    ("mlp", "MoELayer"): "grouped_moe_mlp",
    ("mlp.shared_experts", "SharedExpertMLP"): "shared_experts_mlp",
}

CASES: list[tuple[str, dict[str, object]]] = [
    *((key, {}) for key in CONFIGS),
    ("llama3_dense", {"num_layers": 3}),
    ("qwen3_moe", {"num_layers": 4, "moe_layer_freq": 2}),
    ("qwen3_moe", {"num_layers": 3, "moe_layer_freq": [0, 1, 1]}),
    ("qwen3_5_dense", {"num_layers": 5, "linear_attention_freq": 2}),
]
# The default handler accepts the config of every dense model with standard attention.
PLAIN = {key for key in FAMILIES if CONFIGS[key].keys() <= {"add_qkv_bias", "qk_layernorm"}}


@pytest.mark.parametrize(("key", "options"), CASES)
def test_families_are_those_of_the_built_model(
    family_config: FamilyConfig, build_model: BuildModel, key: str, options: dict[str, object]
) -> None:
    config = family_config(key, **options)
    built: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, layer in enumerate(build_model(config).decoder.layers):
        for path, module in layer.named_modules():
            if (path, type(module).__name__) in BUILT_AS:
                built[path, type(module).__name__].append(index)

    families = family_handler(key).collect_layer_families(config)

    assert {
        (family.module_path, family.module_type): list(family.layer_indices) for family in families
    } == built
    for family in families:
        assert BUILT_AS[family.module_path, family.module_type] == family.key
        assert family.count == len(built[family.module_path, family.module_type])
        assert family.layer_index == min(family.layer_indices)


@pytest.mark.parametrize("config_key", CONFIGS)
@pytest.mark.parametrize("handler_key", CONFIGS)
def test_the_config_of_another_family_is_refused(
    family_config: FamilyConfig, handler_key: str, config_key: str
) -> None:
    config = family_config(config_key)
    accepted = PLAIN if handler_key == "default_dense" else {handler_key}
    if config_key in accepted or CONFIGS[config_key] == CONFIGS[handler_key]:
        assert family_handler(handler_key).collect_layer_families(config)
        return
    with pytest.raises(ConfigurationError, match=f"{handler_key} model"):
        family_handler(handler_key).collect_layer_families(config)


def test_qwen3_5_moe_has_a_shared_expert(family_config: FamilyConfig) -> None:
    config = family_config("qwen3_5_moe", moe_shared_expert_intermediate_size=None)
    with pytest.raises(ConfigurationError, match="shared expert"):
        family_handler("qwen3_5_moe").collect_layer_families(config)


def test_a_pattern_of_the_wrong_length_is_refused(family_config: FamilyConfig) -> None:
    config = family_config("qwen3_moe")
    config.moe_layer_freq = [1]
    with pytest.raises(ConfigurationError, match="pattern of layers") as raised:
        family_handler("qwen3_moe").collect_layer_families(config)
    assert isinstance(raised.value.__cause__, AssertionError)
