"""LoRA targets of megatron models, compared with transformers' models and PEFT."""

import re
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from art.errors import ConfigurationError

from .adapter_models import base_model
from .conftest import BuildModel, FamilyConfig
from .tiny_models import CASES, FAMILIES, family_handler, hf_config


def hf_model(case: str, device: str = "meta") -> PreTrainedModel:
    with torch.device(device):
        return CASES[case].model_class(hf_config(case))


def is_expert(name: str) -> bool:
    return ".mlp.experts" in name


@pytest.mark.parametrize("key", FAMILIES)
def test_targets_are_the_modules_that_peft_adapts(key: str) -> None:
    targets = family_handler(key).collect_lora_targets(base_model(key))
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
    """The modules that are left out on purpose are listed here."""
    targets = family_handler(key).collect_lora_targets(base_model(key))
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
    """Its megatron weight has the inputs of the Hugging Face modules, and all their outputs."""
    model = base_model(key)
    hf = hf_model(key)
    for target in family_handler(key).collect_lora_targets(model):
        weight = model.get_parameter(f"{target.module_path}.weight")
        if any(is_expert(name) for name in target.adapter_modules):
            continue
        names = list(target.adapter_modules)
        if "in_proj_z" in target.target_modules:
            layer = names[0].removesuffix("in_proj_qkv")
            names += [f"{layer}in_proj_{gate}" for gate in "ba"]
        shapes = [hf.get_parameter(f"{name}.weight").shape for name in names]
        assert weight.shape[0] == sum(rows for rows, _ in shapes), target
        assert {weight.shape[1]} == {columns for _, columns in shapes}, target


def test_experts_are_named_as_in_the_published_checkpoints(tmp_path: Path) -> None:
    """transformers fuses experts in memory, and saves them as in the published files."""
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
        for target in family_handler("qwen3_moe").collect_lora_targets(model)
        if "experts" in target.target_modules
    ]
    ours = {name for target in targets for name in target.adapter_modules}
    assert ours == {name for name in shapes if re.search(r"\.mlp\.experts\.\d+\.", name)}
    for target in targets:
        weight = model.get_parameter(f"{target.module_path}.weight")
        rows, columns = zip(*(shapes[name] for name in target.adapter_modules), strict=True)
        assert (weight.shape[0], {weight.shape[1]}) == (sum(rows), set(columns))


def test_qwen3_5_experts_adapt_gate_and_up_as_one() -> None:
    """As the published checkpoints hold them: one gate_up_proj and one down_proj a layer."""
    hf = dict(hf_model("qwen3_5_moe").named_parameters())
    model = base_model("qwen3_5_moe")
    targets = [
        target
        for target in family_handler("qwen3_5_moe").collect_lora_targets(model)
        if "experts" in target.target_modules
    ]
    assert len(targets) == 4 * 6 * 2
    for target in targets:
        (name,) = target.adapter_modules
        match = re.fullmatch(r"(.+)\.(\d+)\.(\w+)", name)
        assert match is not None, name
        layer, number, projection = match.groups()
        experts, rows, columns = hf[f"{layer}.{projection}"].shape
        assert int(number) < experts
        assert model.get_parameter(f"{target.module_path}.weight").shape == (rows, columns)


def test_layers_and_experts_keep_their_global_numbers(
    family_config: FamilyConfig, build_model: BuildModel
) -> None:
    """As on the second rank of a pipeline, and the second rank of expert parallelism."""
    from megatron.core.transformer.moe.moe_layer import MoELayer

    model = build_model(family_config("qwen3_moe"))
    for layer in model.decoder.layers:
        layer.layer_number += 2
        assert isinstance(layer.mlp, MoELayer)
        layer.mlp.local_expert_indices = [4, 5, 6, 7]
    targets = family_handler("qwen3_moe").collect_lora_targets(model)
    assert targets[0].module_path == "decoder.layers.0.self_attention.linear_qkv"
    assert targets[0].adapter_modules[0] == "model.layers.2.self_attn.q_proj"
    last = targets[-1]
    assert last.module_path == "decoder.layers.1.mlp.experts.local_experts.3.linear_fc2"
    assert last.adapter_modules == ("model.layers.3.mlp.experts.7.down_proj",)


def test_grouped_experts_are_one_target_for_all(
    family_config: FamilyConfig, build_model: BuildModel
) -> None:
    """TEGroupedMLP cannot be built without Transformer Engine; its type and config are enough."""
    from megatron.core.transformer.moe.experts import TEGroupedMLP

    model = build_model(family_config("qwen3_moe", num_layers=1))
    grouped = TEGroupedMLP.__new__(TEGroupedMLP)
    nn.Module.__init__(grouped)
    grouped.config = model.config
    model.decoder.layers[0].mlp.experts = grouped
    fc1, fc2 = family_handler("qwen3_moe").collect_lora_targets(model)[2:]
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
        family_handler("qwen3_moe").collect_lora_targets(model)


def test_an_mlp_without_a_gate_is_refused(
    family_config: FamilyConfig, build_model: BuildModel
) -> None:
    config = family_config(
        "default_dense", gated_linear_unit=False, activation_func=nn.functional.gelu
    )
    with pytest.raises(ConfigurationError, match=r"layers\.0\.mlp has no gate"):
        family_handler("default_dense").collect_lora_targets(build_model(config))


def test_the_model_of_another_family_is_refused(
    family_config: FamilyConfig, build_model: BuildModel
) -> None:
    with pytest.raises(ConfigurationError, match="num_moe_experts=4"):
        family_handler("qwen3_dense").collect_lora_targets(build_model(family_config("qwen3_moe")))
