"""Conversions between trained LoRA tensors and vLLM's, compared with PEFT and transformers.

PEFT's fused experts are what vLLM loads for models that say ``is_3d_moe_weight``; both read
``lora_B`` as ``reshape(out, rank, experts)``.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    GptOssConfig,
    GptOssForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3_5MoeForCausalLM,
    Qwen3_5MoeTextConfig,
    Qwen3_5TextConfig,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5Attention

from art.errors import AdapterFormatError

from .conftest import BuildModel, FamilyConfig
from .tiny_models import CASES, FAMILIES, FUSED_EXPERTS, family_handler

if TYPE_CHECKING:
    from megatron.core.models.gpt import GPTModel

LAYERS = "base_model.model.model.layers"
SERVED_LAYERS = "base_model.model.model.language_model.layers"
RANK = 3
CONFIG: dict[str, Any] = {
    "r": RANK,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "target_modules": [],
}
TINY: dict[str, Any] = {
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 64,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
}


def adapter(module: str, rows: int, columns: int, rank: int = RANK) -> dict[str, Tensor]:
    """Make a random adapter of one linear module."""
    return {
        f"{module}.lora_A.weight": torch.randn(rank, columns),
        f"{module}.lora_B.weight": torch.randn(rows, rank),
    }


def trained_adapter(
    key: str, *, rank: int = RANK, experts: int = 3, width: int = 4
) -> dict[str, Tensor]:
    """Make an adapter as training names it: of attention, and of the family's MLP."""
    tensors: dict[str, Tensor] = {}
    for layer in ("0", "11"):
        path = f"{LAYERS}.{layer}"
        gate = 2 if key.startswith("qwen3_5") else 1
        tensors |= adapter(f"{path}.self_attn.q_proj", 4 * 8 * gate, 16, rank)
        tensors |= adapter(f"{path}.self_attn.o_proj", 16, 4 * 8, rank)
        if not CASES[key].experts:
            tensors |= adapter(f"{path}.mlp.gate_proj", width, 16, rank)
            continue
        fused = CASES[key].parameters == FUSED_EXPERTS
        for number in range(experts):
            expert = f"{path}.mlp.experts.{number}"
            for projection in ["gate_up_proj"] if fused else ["gate_proj", "up_proj"]:
                tensors |= adapter(f"{expert}.{projection}", width * (1 + fused), 16, rank)
            tensors |= adapter(f"{expert}.down_proj", 16, width, rank)
    return tensors


def assert_same(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name


def fused_peft_model(
    model_class: type[PreTrainedModel], config_class: type[PretrainedConfig]
) -> tuple[dict[str, Tensor], dict[tuple[str, str], Tensor]]:
    """Let PEFT adapt the fused experts of a model; return the adapter and its weight updates."""
    model = get_peft_model(
        model_class(config_class(**TINY)),
        LoraConfig(
            r=RANK,
            lora_alpha=RANK,
            init_lora_weights=False,
            target_modules=["o_proj"],
            target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
        ),
    )
    deltas = {
        (name, module.parameter_name): module.get_delta_weight("default")
        for name, module in model.named_modules()
        if hasattr(module, "parameter_name")
    }
    return get_peft_model_state_dict(model), deltas


def product(tensors: dict[str, Tensor], module: str) -> Tensor:
    """Compute the update of a module's weight by an adapter, at a scale of 1."""
    return tensors[f"{module}.lora_B.weight"] @ tensors[f"{module}.lora_A.weight"]


@pytest.mark.parametrize("key", FAMILIES)
@given(
    rank=st.integers(1, 5), experts=st.integers(1, 5), width=st.integers(1, 6), seed=st.integers(0)
)
@settings(max_examples=15, deadline=None)
def test_from_vllm_inverts_to_vllm(
    key: str, rank: int, experts: int, width: int, seed: int
) -> None:
    torch.manual_seed(seed % 2**63)
    trained = trained_adapter(key, rank=rank, experts=experts, width=width)
    config = {**CONFIG, "r": rank}
    served, served_config = family_handler(key).to_vllm_lora_tensors(trained, adapter_config=config)
    assert served_config["r"] == rank
    restored = family_handler(key).from_vllm_lora_tensors(served, adapter_config=served_config)
    assert_same(restored, trained)
    again, _ = family_handler(key).to_vllm_lora_tensors(restored, adapter_config=served_config)
    assert_same(again, served)


@pytest.mark.parametrize("key", FAMILIES)
def test_converted_tensors_can_be_saved(key: str, tmp_path: Path) -> None:
    trained = trained_adapter(key)
    served, config = family_handler(key).to_vllm_lora_tensors(trained, adapter_config=CONFIG)
    save_file(served, tmp_path / "served.safetensors")
    restored = family_handler(key).from_vllm_lora_tensors(served, adapter_config=config)
    save_file(restored, tmp_path / "restored.safetensors")
    assert_same(load_file(tmp_path / "restored.safetensors"), trained)


@pytest.mark.parametrize("key", FAMILIES)
def test_conversions_do_not_change_their_arguments(key: str) -> None:
    trained = trained_adapter(key)
    copies = {name: tensor.clone() for name, tensor in trained.items()}
    config = dict(CONFIG)
    served, served_config = family_handler(key).to_vllm_lora_tensors(trained, adapter_config=config)
    assert_same(trained, copies)
    assert config == CONFIG
    served_config["r"] = 0
    served.clear()
    assert (len(trained), config["r"]) == (len(copies), RANK)


@pytest.mark.parametrize("key", FAMILIES)
def test_every_target_of_a_model_can_be_served(
    family_config: FamilyConfig, build_model: BuildModel, key: str
) -> None:
    """Adapters of every LoRA target, converted to vLLM's layout and back."""
    trained: dict[str, Tensor] = {}
    for target in family_handler(key).collect_lora_targets(build_model(family_config(key))):
        for name in target.adapter_modules:
            rows = 64 if name.endswith("q_proj") and key.startswith("qwen3_5") else 32
            columns = 16 if ".experts." in name and "down" in name else 32
            trained |= adapter(f"base_model.model.{name}", rows, columns)
    served, config = family_handler(key).to_vllm_lora_tensors(trained, adapter_config=CONFIG)
    assert_same(family_handler(key).from_vllm_lora_tensors(served, adapter_config=config), trained)


@pytest.mark.parametrize("key", ["default_dense", "llama3_dense", "qwen3_dense"])
def test_dense_adapters_are_served_unchanged(key: str) -> None:
    trained = trained_adapter(key)
    served, config = family_handler(key).to_vllm_lora_tensors(trained, adapter_config=CONFIG)
    assert_same(served, trained)
    assert config == CONFIG


def test_qwen3_moe_splits_the_fused_experts_of_peft(tmp_path: Path) -> None:
    tensors, deltas = fused_peft_model(Qwen3MoeForCausalLM, Qwen3MoeConfig)
    served, config = family_handler("qwen3_moe").to_vllm_lora_tensors(
        tensors, adapter_config=CONFIG
    )
    assert config["target_modules"] == ["o_proj", "experts"]
    assert len(deltas) == 2 * TINY["num_hidden_layers"]
    for (name, parameter), delta in deltas.items():
        experts = name.removesuffix(".base_layer")
        for number, of_expert in enumerate(delta):
            path = f"{experts}.{number}"
            projections = ["gate_proj", "up_proj"] if "gate_up" in parameter else ["down_proj"]
            ours = torch.cat([product(served, f"{path}.{name}") for name in projections])
            torch.testing.assert_close(ours, of_expert)
    expert_names = [name for name in served if ".mlp.experts." in name]
    assert len(expert_names) == 2 * 4 * 3 * 2
    assert all(re.search(r"experts\.\d\.(gate|up|down)_proj\.lora_[AB]", n) for n in expert_names)
    assert_same(
        family_handler("qwen3_moe").from_vllm_lora_tensors(served, adapter_config=CONFIG), served
    )
    # Gate and up came from one tensor; safetensors refuses two names for the same memory.
    save_file(served, tmp_path / "served.safetensors")
    assert_same(load_file(tmp_path / "served.safetensors"), served)


def test_qwen3_5_moe_serves_the_fused_experts_of_peft() -> None:
    """The fused experts of training equal PEFT's own tensors for the same adapter."""
    tensors, deltas = fused_peft_model(Qwen3_5MoeForCausalLM, Qwen3_5MoeTextConfig)
    # Only the order of q_proj's rows needs the heads, and there is no q_proj here.
    config = {"r": RANK, "target_modules": ["o_proj", "experts"]}
    in_vllms_names = {name.replace(LAYERS, SERVED_LAYERS): tensors[name] for name in tensors}
    trained = family_handler("qwen3_5_moe").from_vllm_lora_tensors(
        in_vllms_names, adapter_config=config
    )
    for (name, parameter), delta in deltas.items():
        experts = name.removesuffix(".base_layer")
        for number, of_expert in enumerate(delta):
            ours = product(trained, f"{experts}.{number}.{parameter.rpartition('.')[2]}")
            torch.testing.assert_close(ours, of_expert)
    served, served_config = family_handler("qwen3_5_moe").to_vllm_lora_tensors(
        trained, adapter_config=config
    )
    assert_same(served, in_vllms_names)
    assert served_config["target_modules"] == ["experts"]


def test_gpt_oss_serves_the_fused_experts_of_peft() -> None:
    """Training keeps an expert's gates, then its ups; PEFT and vLLM interleave them."""
    tensors, deltas = fused_peft_model(GptOssForCausalLM, GptOssConfig)
    config = {"r": RANK, "target_modules": ["o_proj", "experts"]}
    trained = family_handler("gpt_oss").from_vllm_lora_tensors(tensors, adapter_config=config)
    assert len(deltas) == 2 * TINY["num_hidden_layers"]
    for (name, parameter), delta in deltas.items():
        experts, projection = name.removesuffix(".base_layer"), parameter.rpartition(".")[2]
        for number, of_expert in enumerate(delta.transpose(1, 2)):
            if projection == "gate_up_proj":
                of_expert = torch.cat([of_expert[0::2], of_expert[1::2]])
            ours = product(trained, f"{experts}.{number}.{projection}")
            torch.testing.assert_close(ours, of_expert)
    served, _ = family_handler("gpt_oss").to_vllm_lora_tensors(trained, adapter_config=config)
    assert_same(served, tensors)


def test_qwen3_5_names_are_those_of_the_class_that_vllm_serves() -> None:
    text = Qwen3_5TextConfig(**TINY | {"full_attention_interval": 2})
    with torch.device("meta"):
        model = Qwen3_5ForConditionalGeneration(Qwen3_5Config(text_config=text.to_dict()))
    trained = adapter(f"{LAYERS}.1.self_attn.o_proj", 32, 32)
    served, _ = family_handler("qwen3_5_dense").to_vllm_lora_tensors(trained, adapter_config=CONFIG)
    for name in served:
        module = re.sub(r"^base_model\.model\.|\.lora_[AB]\.weight$", "", name)
        assert model.get_parameter(f"{module}.weight").shape == (32, 32)


def test_gated_queries_are_in_the_order_of_each_engine(
    family_config: FamilyConfig, build_model: BuildModel
) -> None:
    """One adapter, in megatron's attention as trained and in transformers' as served."""
    config = family_config("qwen3_5_dense")
    tensors = adapter(f"{LAYERS}.3.self_attn.q_proj", 64, 32)
    served, _ = family_handler("qwen3_5_dense").to_vllm_lora_tensors(tensors, adapter_config=CONFIG)
    # Small, so that the gate's sigmoid can be undone.
    as_trained = product(tensors, f"{LAYERS}.3.self_attn.q_proj") / 32
    as_served = product(served, f"{SERVED_LAYERS}.3.self_attn.q_proj") / 32
    assert not torch.equal(as_trained, as_served)

    query, gate = _megatron_query_and_gate(build_model(config), as_trained)
    hf_query, hf_gate = _hf_query_and_gate(as_served)
    torch.testing.assert_close(query, hf_query)
    torch.testing.assert_close(gate, hf_gate)


@torch.no_grad()
def _megatron_query_and_gate(model: "GPTModel", weight: Tensor) -> tuple[Tensor, Tensor]:
    """Compute query and gate, ``[N, D]`` each, of ones. ``weight`` is q_proj's, ``[64, 32]``."""
    from megatron.core.transformer.attention import SelfAttention

    attention = model.decoder.layers[3].self_attention
    assert isinstance(attention, SelfAttention)
    attention.q_layernorm = torch.nn.Identity()
    # Each of two groups has two queries, two gates, a key and a value, of eight rows each.
    key_value = torch.zeros(2, 16, 32)
    qkv = torch.cat([weight.reshape(2, 32, 32), key_value], dim=1).reshape(96, 32)
    attention.get_parameter("linear_qkv.weight").copy_(qkv)
    query, _, _, gate = attention.get_query_key_value_tensors(
        torch.ones(1, 1, 32), output_gate=True
    )
    return query[0, 0], gate[0, 0]


@torch.no_grad()
def _hf_query_and_gate(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the same with transformers: the input of its q_norm, and the gate of its output."""
    options = {"full_attention_interval": 1, "attn_implementation": "eager"}
    # transformers' annotation names the config of the whole model, of which this is the text part.
    text_config: Any = Qwen3_5TextConfig(**TINY | options)
    attention = Qwen3_5Attention(text_config, 0)
    attention.q_proj.weight.copy_(weight)
    # A value of 1 at the only position makes the attention's output 1, which leaves the gate.
    attention.v_proj.weight.fill_(1 / 32)
    seen: dict[str, Tensor] = {}
    attention.q_norm.register_forward_pre_hook(lambda _, args: seen.update(query=args[0]))
    attention.o_proj.register_forward_pre_hook(lambda _, args: seen.update(gated=args[0]))
    rotation = (torch.ones(1, 1, 8), torch.zeros(1, 1, 8))
    attention(torch.ones(1, 1, 32), position_embeddings=rotation, attention_mask=None)
    return seen["query"].reshape(4, 8), torch.logit(seen["gated"]).reshape(4, 8)


O_PROJ = adapter(f"{LAYERS}.0.self_attn.o_proj", 32, 32)
Q_PROJ = adapter(f"{LAYERS}.0.self_attn.q_proj", 64, 32)
EXPERTS = f"{LAYERS}.0.mlp.experts"
SERVED_EXPERTS = f"{SERVED_LAYERS}.0.mlp.experts"
# Two experts of hidden size 6 and intermediate size 4.
FUSED = {
    f"{EXPERTS}.base_layer.lora_A.weight": torch.randn(2 * RANK, 6),
    f"{EXPERTS}.base_layer.lora_B.weight": torch.randn(8, 2 * RANK),
    f"{EXPERTS}.lora_A.weight": torch.randn(2 * RANK, 4),
    f"{EXPERTS}.lora_B.weight": torch.randn(6, 2 * RANK),
}
SERVED_FUSED = {name.replace(EXPERTS, SERVED_EXPERTS): tensor for name, tensor in FUSED.items()}


def without(tensors: dict[str, Tensor], *suffixes: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(suffixes)}


def transposed(tensors: dict[str, Tensor], suffix: str) -> dict[str, Tensor]:
    return {n: t.T if n.endswith(suffix) else t for n, t in tensors.items()}


BAD_TO_VLLM: list[tuple[str, dict[str, Tensor], dict[str, object], str]] = [
    ("llama3_dense", {"model.layers.0.weight": torch.ones(1, 1)}, {}, "not the name of a LoRA"),
    ("llama3_dense", without(O_PROJ, "lora_B.weight"), {}, "has lora_A but no lora_B"),
    ("llama3_dense", transposed(O_PROJ, "lora_B.weight"), {}, "rows of A must equal columns"),
    ("llama3_dense", O_PROJ, {"r": 4}, "have rank 3, but the config has r=4"),
    ("llama3_dense", O_PROJ, {"r": None}, "r must be a positive int, not None"),
    ("llama3_dense", O_PROJ, {"r": 0}, "r must be a positive int, not 0"),
    ("llama3_dense", {n: t[0] for n, t in O_PROJ.items()}, {}, "must be matrices"),
    ("llama3_dense", FUSED, {}, "has no routed experts"),
    ("qwen3_5_dense", FUSED, {}, "has no routed experts"),
    ("qwen3_5_dense", adapter("base_model.model.lm_head", 9, 9), {}, "not in the decoder"),
    ("qwen3_5_dense", Q_PROJ, {"num_attention_heads": None}, "num_attention_heads"),
    ("qwen3_5_dense", Q_PROJ, {"num_key_value_heads": 3}, "64 rows of lora_B are not a query"),
    ("qwen3_5_dense", Q_PROJ, {"num_attention_heads": 5}, "64 rows of lora_B are not a query"),
    ("qwen3_5_dense", adapter(f"{LAYERS}.0.linear_attn.in_proj_z", 9, 6)
     | adapter(f"{LAYERS}.1.linear_attn.in_proj_qkv", 9, 6), {}, "0.linear_attn.in_proj_z without"),
    ("qwen3_moe", FUSED, {"r": 4}, "not a multiple of the rank 4"),
    ("qwen3_moe", without(FUSED, "base_layer.lora_A.weight", "base_layer.lora_B.weight"), {},
     r"has only \['down_proj'\]"),
    ("qwen3_moe", FUSED | {f"{EXPERTS}.lora_A.weight": torch.ones(6, 5)}, {}, r"are not \[E, R, H"),
    ("qwen3_moe", FUSED | adapter(f"{EXPERTS}.0.up_proj", 4, 6), {}, "both fused and single"),
    ("qwen3_moe", adapter(f"{EXPERTS}.0.up_proj", 4, 6), {}, "every expert must have"),
    ("qwen3_5_moe", FUSED, {}, "training keeps experts one by one"),
    ("qwen3_5_moe", adapter(f"{EXPERTS}.0.gate_proj", 4, 6), {}, "every expert must have"),
    ("qwen3_5_moe", {
        **adapter(f"{EXPERTS}.0.gate_up_proj", 8, 6), **adapter(f"{EXPERTS}.1.gate_up_proj", 8, 6),
        **adapter(f"{EXPERTS}.1.down_proj", 6, 4),
    }, {}, r"experts \[0\] have no down_proj"),
    ("qwen3_5_moe", {
        **adapter(f"{EXPERTS}.0.gate_up_proj", 8, 6), **adapter(f"{EXPERTS}.0.down_proj", 6, 4),
        **adapter(f"{EXPERTS}.1.gate_up_proj", 6, 6), **adapter(f"{EXPERTS}.1.down_proj", 6, 4),
    }, {}, "shapes of gate_up_proj differ"),
    ("qwen3_5_moe", {
        **adapter(f"{EXPERTS}.0.gate_up_proj", 7, 6), **adapter(f"{EXPERTS}.0.down_proj", 6, 4),
    }, {}, r"are not \[E, R, H"),
    ("gpt_oss", FUSED, {}, "training keeps experts one by one"),
    ("gpt_oss", adapter(f"{EXPERTS}.0.gate_up_proj", 7, 6), {}, "it must have as many gates"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "tensors", "options", "message"), BAD_TO_VLLM)
def test_adapters_that_vllm_could_not_load_are_refused(
    key: str, tensors: dict[str, Tensor], options: dict[str, object], message: str
) -> None:
    with pytest.raises(AdapterFormatError, match=message):
        family_handler(key).to_vllm_lora_tensors(tensors, adapter_config=CONFIG | options)


BAD_FROM_VLLM = [
    ("qwen3_dense", FUSED, "has no routed experts"),
    ("qwen3_moe", FUSED, "vLLM keeps the experts of qwen3_moe one by one"),
    ("qwen3_moe", adapter(f"{EXPERTS}.0.up_proj", 4, 6), "every expert must have"),
    ("qwen3_5_dense", O_PROJ, "not in the decoder"),
    ("qwen3_5_dense", SERVED_FUSED, "has no routed experts"),
    ("qwen3_5_moe", adapter(f"{SERVED_EXPERTS}.0.up_proj", 4, 6), "of qwen3_5_moe fused"),
    ("qwen3_5_moe", without(SERVED_FUSED, "experts.lora_A.weight"), "lora_B but no lora_A"),
    ("qwen3_5_moe", without(SERVED_FUSED, "experts.lora_A.weight", "experts.lora_B.weight"),
     r"has only \['gate_up_proj'\]"),
    ("gpt_oss", adapter(f"{EXPERTS}.0.up_proj", 4, 6), "of gpt_oss fused"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "tensors", "message"), BAD_FROM_VLLM)
def test_tensors_that_vllm_would_not_have_are_refused(
    key: str, tensors: dict[str, Tensor], message: str
) -> None:
    with pytest.raises(AdapterFormatError, match=message):
        family_handler(key).from_vllm_lora_tensors(tensors, adapter_config=CONFIG)
