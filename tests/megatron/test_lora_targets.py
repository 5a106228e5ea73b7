"""LoRA targets of megatron models, against the same models of transformers and PEFT."""

import re

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from art.errors import ConfigurationError
from art.megatron.model_support import handlers

from .adapter_models import base_model
from .tiny_models import CASES, FAMILIES, hf_config


def handler(key: str):
    return getattr(handlers, f"{key.upper()}_HANDLER")


def hf_model(case: str, device: str = "meta") -> PreTrainedModel:
    with torch.device(device):
        return CASES[case].model_class(hf_config(case))


def is_expert(name: str) -> bool:
    return ".mlp.experts" in name


@pytest.mark.parametrize("key", FAMILIES)
def test_targets_are_the_modules_that_peft_adapts(key: str) -> None:
    targets = handler(key).collect_lora_targets(base_model(key))
    spec = CASES[key].spec
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
    default = set(spec.default_target_modules)
    assert default <= {name for target in targets for name in target.target_modules}
    for target in targets:
        chosen = default.intersection(target.target_modules)
        # Any of an expert's names adapts it whole.
        assert "experts" in chosen or chosen == set(target.target_modules)


@pytest.mark.parametrize("key", FAMILIES)
def test_every_linear_module_of_the_decoder_is_covered(key: str) -> None:
    """What is left out is left out on purpose, by name."""
    targets = handler(key).collect_lora_targets(base_model(key))
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


@pytest.mark.parametrize("key", FAMILIES)
def test_a_target_holds_the_weights_of_its_modules(key: str) -> None:
    """Its megatron weight has the input of the Hugging Face modules, and all their outputs."""
    model = base_model(key)
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


def test_experts_are_named_as_in_the_published_checkpoints(tmp_path: Path) -> None:
    """transformers fuses experts in memory, and writes them as the published files have them."""
    hf_model("qwen3_moe", "cpu").save_pretrained(tmp_path)
    from safetensors import safe_open

    with safe_open(tmp_path / "model.safetensors", framework="pt") as checkpoint:
        shapes = {
            name.removesuffix(".weight"): checkpoint.get_slice(name).get_shape()
            for name in checkpoint.keys()  # noqa: SIM118 - not a dict
        }
    model = base_model("qwen3_moe")
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


def test_qwen3_5_experts_adapt_gate_and_up_as_one() -> None:
    """As the published checkpoints hold them: one gate_up_proj and one down_proj a layer."""
    hf = dict(hf_model("qwen3_5_moe").named_parameters())
    model = base_model("qwen3_5_moe")
    targets = [
        target
        for target in handler("qwen3_5_moe").collect_lora_targets(model)
        if "experts" in target.target_modules
    ]
    assert len(targets) == 4 * 6 * 2
    for target in targets:
        (name,) = target.adapter_modules
        layer, number, projection = re.fullmatch(r"(.+)\.(\d+)\.(\w+)", name).groups()
        experts, rows, columns = hf[f"{layer}.{projection}"].shape
        assert int(number) < experts
        assert model.get_submodule(target.module_path).weight.shape == (rows, columns)


def test_layers_and_experts_keep_their_global_numbers(
    family_config: FamilyConfig, build_model: BuildModel
) -> None:
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


def test_grouped_experts_are_one_target_for_all(
    family_config: FamilyConfig, build_model: BuildModel
) -> None:
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
    family_config: FamilyConfig, build_model: BuildModel, path: str, message: str
) -> None:
    model = build_model(family_config("qwen3_moe"))
    model.decoder.layers[0].set_submodule(path, nn.Identity())
    with pytest.raises(ConfigurationError, match=message):
        handler("qwen3_moe").collect_lora_targets(model)


def test_an_mlp_without_a_gate_is_refused(
    family_config: FamilyConfig, build_model: BuildModel
) -> None:
    config = family_config(
        "default_dense", gated_linear_unit=False, activation_func=nn.functional.gelu
    )
    with pytest.raises(ConfigurationError, match=r"layers\.0\.mlp has no gate"):
        handler("default_dense").collect_lora_targets(build_model(config))


def test_the_model_of_another_family_is_refused(
    family_config: FamilyConfig, build_model: BuildModel
) -> None:
    with pytest.raises(ConfigurationError, match="num_moe_experts=4"):
        handler("qwen3_dense").collect_lora_targets(build_model(family_config("qwen3_moe")))
