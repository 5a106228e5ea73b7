"""Logits of models of any shape, compared with those of transformers."""

from typing import Any, Protocol

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from transformers import (
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3_5MoeForCausalLM,
    Qwen3_5MoeTextConfig,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from .tiny_models import family_handler

Fields = dict[str, Any]
"""Fields of a Hugging Face config."""


class AssertSameLogits(Protocol):
    """Compares our model of a family with transformers' on a text of some length."""

    def __call__(self, family: str, reference: PreTrainedModel, length: int) -> None: ...


SHAPES = settings(
    max_examples=12,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking takes minutes
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@st.composite
def attention(draw: st.DrawFn) -> Fields:
    groups = draw(st.integers(1, 3))
    return {
        "num_hidden_layers": draw(st.integers(1, 3)),
        "hidden_size": draw(st.integers(3, 20)) * groups * 2,
        "intermediate_size": draw(st.integers(5, 40)),
        "num_key_value_heads": groups,
        "num_attention_heads": groups * 2,
        "head_dim": draw(st.integers(2, 9)) * 2,
        "vocab_size": draw(st.integers(3, 50)),
        "max_position_embeddings": 64,
        "initializer_range": 0.05,
        "rms_norm_eps": draw(st.sampled_from([1e-5, 1e-6])),
        "tie_word_embeddings": draw(st.booleans()),
    }


@st.composite
def rotation(draw: st.DrawFn) -> Fields:
    rope: Fields = {"rope_theta": draw(st.sampled_from([100.0, 1e4, 5e5]))}
    kind = draw(st.sampled_from(["default", "linear", "llama3", "yarn"]))
    if kind != "default":
        rope["factor"] = draw(st.sampled_from([2.0, 3.5, 8.0]))
    if kind == "llama3":
        rope |= {
            "low_freq_factor": draw(st.sampled_from([1.0, 2.0])),
            "high_freq_factor": draw(st.sampled_from([3.0, 4.0])),
            "original_max_position_embeddings": draw(st.sampled_from([8, 16, 32])),
        }
    if kind == "yarn":
        rope |= {
            "original_max_position_embeddings": draw(st.sampled_from([8, 16, 32])),
            "truncate": draw(st.booleans()),
        }
        options = {"beta_fast": 8.0, "beta_slow": 0.5, "attention_factor": 1.3, "mscale": 0.7}
        options["mscale_all_dim"] = 1.2
        rope |= {name: value for name, value in options.items() if draw(st.booleans())}
    return rope | {"rope_type": kind}


@st.composite
def experts(draw: st.DrawFn) -> Fields:
    number = draw(st.integers(2, 7))
    return {
        "num_experts": number,
        "num_experts_per_tok": draw(st.integers(2, number)),
        "moe_intermediate_size": draw(st.integers(3, 20)),
    }


@st.composite
def gated_delta_net(draw: st.DrawFn, layers: int) -> Fields:
    heads = draw(st.integers(1, 3))
    kinds = st.sampled_from(["linear_attention", "full_attention"])
    return {
        "layer_types": draw(st.lists(kinds, min_size=layers, max_size=layers)),
        "linear_conv_kernel_dim": draw(st.integers(2, 5)),
        "linear_key_head_dim": draw(st.integers(2, 12)),
        "linear_value_head_dim": draw(st.integers(2, 12)),
        "linear_num_key_heads": heads,
        "linear_num_value_heads": heads * draw(st.integers(1, 3)),
    }


@st.composite
def sliding_window(draw: st.DrawFn, layers: int) -> Fields:
    kinds = st.sampled_from(["sliding_attention", "full_attention"])
    return {
        "layer_types": draw(st.lists(kinds, min_size=layers, max_size=layers)),
        "sliding_window": draw(st.integers(1, 20)),
    }


@pytest.fixture(scope="module")
def assert_same_logits(tmp_path_factory: pytest.TempPathFactory) -> AssertSameLogits:
    from art.megatron.models.build import build_model, transformer_config
    from art.megatron.weights.load import load_weights

    def check(family: str, reference: PreTrainedModel, length: int) -> None:
        reference.eval()
        # Its grouped matrix product supports only sizes that are multiples of 16 bytes.
        reference.set_experts_implementation("eager")
        folder = tmp_path_factory.mktemp(family)
        reference.save_pretrained(folder)
        handler = family_handler(family)
        architecture = handler.read_config(reference.config)
        model = build_model(architecture, transformer_config(architecture, dtype=torch.float32))
        load_weights(model, handler.weight_mapping(architecture), folder)
        tokens = torch.randint(reference.config.vocab_size, (2, length))
        with torch.no_grad():
            ours = model(tokens, torch.arange(length).expand(2, -1), None)
            theirs = reference(tokens, use_cache=False).logits
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)

    return check


@SHAPES
@given(sizes=attention(), rope=rotation(), length=st.integers(1, 40), seed=st.integers(0, 999))
def test_llama3_of_any_shape(
    assert_same_logits: AssertSameLogits, sizes: Fields, rope: Fields, length: int, seed: int
) -> None:
    torch.manual_seed(seed)
    config = LlamaConfig(**sizes, rope_parameters=rope)
    assert_same_logits("llama3_dense", LlamaForCausalLM(config), length)


@SHAPES
@given(sizes=attention(), routed=experts(), norm=st.booleans(), seed=st.integers(0, 999))
def test_qwen3_moe_of_any_shape(
    assert_same_logits: AssertSameLogits, sizes: Fields, routed: Fields, norm: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    config = Qwen3MoeConfig(**sizes, **routed, norm_topk_prob=norm)
    assert_same_logits("qwen3_moe", Qwen3MoeForCausalLM(config), 9)


@SHAPES
@given(data=st.data(), sizes=attention(), routed=experts(), seed=st.integers(0, 999))
def test_qwen3_5_moe_of_any_shape(
    assert_same_logits: AssertSameLogits,
    data: st.DataObject,
    sizes: Fields,
    routed: Fields,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    sizes |= data.draw(gated_delta_net(sizes["num_hidden_layers"]))
    config = Qwen3_5MoeTextConfig(
        **sizes,
        **routed,
        shared_expert_intermediate_size=data.draw(st.integers(3, 20)),
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 1.0},
    )
    length = data.draw(st.sampled_from([1, 7, 63, 64, 65]))
    assert_same_logits("qwen3_5_moe", Qwen3_5MoeForCausalLM(config), length)


@SHAPES
@given(data=st.data(), sizes=attention(), routed=experts(), rope=rotation())
def test_gpt_oss_of_any_shape(
    assert_same_logits: AssertSameLogits,
    data: st.DataObject,
    sizes: Fields,
    routed: Fields,
    rope: Fields,
) -> None:
    torch.manual_seed(data.draw(st.integers(0, 999)))
    sizes |= data.draw(sliding_window(sizes["num_hidden_layers"]))
    config = GptOssConfig(
        **sizes | {"intermediate_size": routed["moe_intermediate_size"]},
        num_local_experts=routed["num_experts"],
        num_experts_per_tok=routed["num_experts_per_tok"],
        swiglu_limit=data.draw(st.sampled_from([0.0, 0.1, 0.5, 7.0])),
        rope_parameters=rope,
    )
    model = GptOssForCausalLM(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):  # transformers starts most of them as zeros
            torch.nn.init.normal_(parameter, std=0.2)
    assert_same_logits("gpt_oss", model, data.draw(st.integers(1, 40)))
