"""LoRA targets of megatron models, against the same models of transformers and PEFT."""

import re

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3_5ForCausalLM,
    Qwen3_5MoeForCausalLM,
    Qwen3_5MoeTextConfig,
    Qwen3_5TextConfig,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from art.errors import ConfigurationError
from art.megatron.model_support import get_model_support_spec, handlers

# The sizes of the `family_config` fixture, in transformers' words.
DENSE = {
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 64,
}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
GATED_DELTA_NET = {
    "num_hidden_layers": 4,
    "full_attention_interval": 4,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
HF = {
    "llama3_dense": (LlamaForCausalLM, LlamaConfig, DENSE),
    "qwen3_dense": (Qwen3ForCausalLM, Qwen3Config, DENSE),
    "qwen3_moe": (Qwen3MoeForCausalLM, Qwen3MoeConfig, DENSE | MOE),
    "qwen3_5_dense": (Qwen3_5ForCausalLM, Qwen3_5TextConfig, DENSE | GATED_DELTA_NET),
    "qwen3_5_moe": (
        Qwen3_5MoeForCausalLM,
        Qwen3_5MoeTextConfig,
        DENSE | MOE | GATED_DELTA_NET | {"shared_expert_intermediate_size": 24},
    ),
}
PUBLISHED = {
    "llama3_dense": "meta-llama/Llama-3.2-1B",
    "qwen3_dense": "Qwen/Qwen3-0.6B",
    "qwen3_moe": "Qwen/Qwen3-30B-A3B",
    "qwen3_5_dense": "Qwen/Qwen3.5-4B",
    "qwen3_5_moe": "Qwen/Qwen3.5-35B-A3B",
}


def handler(key: str):
    return getattr(handlers, f"{key.upper()}_HANDLER")


def hf_model(key: str, device: str = "meta") -> PreTrainedModel:
    model_class, config_class, options = HF[key]
    with torch.device(device):
        return model_class(config_class(**options))


def is_expert(name: str) -> bool:
    return ".mlp.experts" in name


@pytest.mark.parametrize("key", HF)
def test_targets_are_the_modules_that_peft_adapts(family_config, build_model, key) -> None:
    targets = handler(key).collect_lora_targets(build_model(family_config(key)))
    spec = get_model_support_spec(PUBLISHED[key])
    # PEFT adapts fused experts by parameter, not by module: tests below, and test_vllm_lora.
    by_module = [name for name in spec.default_target_modules if name != "experts"]
    peft_model = get_peft_model(hf_model(key), LoraConfig(target_modules=by_module))
    adapted = {
        name.removeprefix("base_model.model.").removesuffix(".lora_A.default")
        for name, _ in peft_model.named_modules()
        if name.endswith(".lora_A.default") and not is_expert(name)
    }
    ours = [name for target in targets for name in target.adapter_modules]
    assert len(ours) == len(set(ours))
    assert {name for name in ours if not is_expert(name)} == adapted
    named = {name for target in targets for name in target.target_modules}
    assert named == set(spec.default_target_modules)


@pytest.mark.parametrize("key", HF)
def test_every_linear_module_of_the_decoder_is_covered(family_config, build_model, key) -> None:
    """What is left out is left out on purpose, by name."""
    targets = handler(key).collect_lora_targets(build_model(family_config(key)))
    covered = {name for target in targets for name in target.adapter_modules}
    linear = {
        name
        for name, module in hf_model(key).model.named_modules()
        if isinstance(module, nn.Linear)
    }
    left_out = {f"model.{name}" for name in linear} - covered
    assert {name.rpartition(".")[2] for name in left_out} == {
        "qwen3_5_dense": {"in_proj_a", "in_proj_b"},
        "qwen3_5_moe": {"in_proj_a", "in_proj_b", "shared_expert_gate"},
    }.get(key, set())


@pytest.mark.parametrize("key", HF)
def test_a_target_holds_the_weights_of_its_modules(family_config, build_model, key) -> None:
    """Its megatron weight has the input of the Hugging Face modules, and all their outputs."""
    model = build_model(family_config(key))
    hf = hf_model(key)
    for target in handler(key).collect_lora_targets(model):
        weight = model.get_submodule(target.module_path).weight
        if any(is_expert(name) for name in target.adapter_modules):
            continue
        modules = [hf.get_submodule(name) for name in target.adapter_modules]
        if "in_proj_z" in target.target_modules:
            layer = target.adapter_modules[0].removesuffix("in_proj_qkv")
            modules += [hf.get_submodule(f"{layer}in_proj_{gate}") for gate in "ba"]
        assert weight.shape[0] == sum(module.out_features for module in modules), target
        assert {weight.shape[1]} == {module.in_features for module in modules}, target


def test_experts_are_named_as_in_the_published_checkpoints(
    family_config, build_model, tmp_path
) -> None:
    """transformers fuses experts in memory, and writes them as the published files have them."""
    hf_model("qwen3_moe", "cpu").save_pretrained(tmp_path)
    from safetensors import safe_open

    with safe_open(tmp_path / "model.safetensors", framework="pt") as checkpoint:
        shapes = {
            name.removesuffix(".weight"): checkpoint.get_slice(name).get_shape()
            for name in checkpoint.keys()  # noqa: SIM118 - not a dict
        }
    model = build_model(family_config("qwen3_moe"))
    targets = [
        target
        for target in handler("qwen3_moe").collect_lora_targets(model)
        if "experts" in target.target_modules
    ]
    ours = {name for target in targets for name in target.adapter_modules}
    assert ours == {name for name in shapes if re.search(r"\.mlp\.experts\.\d+\.", name)}
    for target in targets:
        weight = model.get_submodule(target.module_path).weight
        rows, columns = zip(*(shapes[name] for name in target.adapter_modules), strict=True)
        assert (weight.shape[0], {weight.shape[1]}) == (sum(rows), set(columns))


def test_qwen3_5_experts_adapt_gate_and_up_as_one(family_config, build_model) -> None:
    """As the published checkpoints hold them: one gate_up_proj and one down_proj a layer."""
    hf = dict(hf_model("qwen3_5_moe").named_parameters())
    model = build_model(family_config("qwen3_5_moe"))
    targets = [
        target
        for target in handler("qwen3_5_moe").collect_lora_targets(model)
        if "experts" in target.target_modules
    ]
    assert len(targets) == 4 * 4 * 2
    for target in targets:
        (name,) = target.adapter_modules
        layer, number, projection = re.fullmatch(r"(.+)\.(\d+)\.(\w+)", name).groups()
        experts, rows, columns = hf[f"{layer}.{projection}"].shape
        assert int(number) < experts
        assert model.get_submodule(target.module_path).weight.shape == (rows, columns)


def test_layers_and_experts_keep_their_global_numbers(family_config, build_model) -> None:
    """As on the second rank of a pipeline, and the second rank of expert parallelism."""
    model = build_model(family_config("qwen3_moe"))
    for layer in model.decoder.layers:
        layer.layer_number += 2
        layer.mlp.local_expert_indices = [4, 5, 6, 7]
    targets = handler("qwen3_moe").collect_lora_targets(model)
    assert targets[0].module_path == "decoder.layers.0.self_attention.linear_qkv"
    assert targets[0].adapter_modules[0] == "model.layers.2.self_attn.q_proj"
    last = targets[-1]
    assert last.module_path == "decoder.layers.1.mlp.experts.local_experts.3.linear_fc2"
    assert last.adapter_modules == ("model.layers.3.mlp.experts.7.down_proj",)


def test_grouped_experts_are_one_target_for_all(family_config, build_model) -> None:
    """TEGroupedMLP needs Transformer Engine to be filled; its type and config are what count."""
    from megatron.core.transformer.moe.experts import TEGroupedMLP

    model = build_model(family_config("qwen3_moe", num_layers=1))
    grouped = TEGroupedMLP.__new__(TEGroupedMLP)
    nn.Module.__init__(grouped)
    grouped.config = model.config
    model.decoder.layers[0].mlp.experts = grouped
    fc1, fc2 = handler("qwen3_moe").collect_lora_targets(model)[2:]
    assert fc1.module_path == "decoder.layers.0.mlp.experts.linear_fc1"
    assert fc1.adapter_modules == tuple(
        f"model.layers.0.mlp.experts.{number}.{projection}"
        for number in range(4)
        for projection in ("gate_proj", "up_proj")
    )
    assert fc2.adapter_modules == tuple(
        f"model.layers.0.mlp.experts.{number}.down_proj" for number in range(4)
    )


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("self_attention", "decoder.layers.0.self_attention is a Identity.*SelfAttention"),
        ("mlp", "decoder.layers.0.mlp is a Identity.*MLP or MoELayer"),
        ("mlp.experts", "decoder.layers.0.mlp.experts is a Identity.*SequentialMLP"),
    ],
)
def test_modules_that_cannot_be_adapted_are_refused(
    family_config, build_model, path, message
) -> None:
    model = build_model(family_config("qwen3_moe"))
    model.decoder.layers[0].set_submodule(path, nn.Identity())
    with pytest.raises(ConfigurationError, match=message):
        handler("qwen3_moe").collect_lora_targets(model)


def test_an_mlp_without_a_gate_is_refused(family_config, build_model) -> None:
    config = family_config(
        "default_dense", gated_linear_unit=False, activation_func=nn.functional.gelu
    )
    with pytest.raises(ConfigurationError, match=r"layers\.0\.mlp has no gate"):
        handler("default_dense").collect_lora_targets(build_model(config))


def test_the_model_of_another_family_is_refused(family_config, build_model) -> None:
    with pytest.raises(ConfigurationError, match="num_moe_experts=4"):
        handler("qwen3_dense").collect_lora_targets(build_model(family_config("qwen3_moe")))
