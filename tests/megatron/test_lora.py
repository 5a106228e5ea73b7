"""Adapters in megatron models: their config, and the modules that can be adapted."""

from pathlib import Path

import pytest
import torch

from art.errors import ConfigurationError
from art.megatron.model_support import handlers

from .adapter_models import adapted_model, base_model


@pytest.mark.parametrize(
    ("rank", "alpha", "targets", "message"),
    [
        (0, 1.0, ("q_proj",), "rank"),
        (1, 0.0, ("q_proj",), "alpha"),
        (1, float("nan"), ("q_proj",), "alpha"),
        (1, 1.0, (), "target_modules"),
    ],
)
def test_a_config_with_a_value_out_of_range_is_refused(
    rank: int, alpha: float, targets: tuple[str, ...], message: str
) -> None:
    from art.megatron.lora.config import MegatronLoraConfig

    with pytest.raises(ConfigurationError, match=message):
        MegatronLoraConfig(rank, alpha, targets)


def test_unknown_modules_are_named() -> None:
    with pytest.raises(ConfigurationError, match=r"no modules called qkv_proj, experts;.*q_proj"):
        adapted_model("qwen3_dense", ("qkv_proj", "q_proj", "experts"))


def test_half_an_expert_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="an expert is adapted whole"):
        adapted_model("qwen3_moe", ("q_proj", "gate_proj", "up_proj"))


def test_adapters_are_added_once() -> None:
    from art.megatron.lora.config import MegatronLoraConfig
    from art.megatron.lora.injection import add_adapters

    model = adapted_model("qwen3_dense")
    with pytest.raises(ConfigurationError, match="adapters already"):
        add_adapters(model, handlers.QWEN3_DENSE_HANDLER, MegatronLoraConfig(1, 1.0, ("q_proj",)))


def test_linear_modules_of_other_types_are_refused() -> None:
    from art.megatron.lora.config import MegatronLoraConfig
    from art.megatron.lora.injection import adapters_of, add_adapters

    model = base_model("qwen3_dense")
    model.set_submodule("decoder.layers.1.mlp.linear_fc2", torch.nn.Linear(52, 60))
    config = MegatronLoraConfig(1, 1.0, ("down_proj",))
    with pytest.raises(ConfigurationError, match=r"layers\.1\.mlp\.linear_fc2 is a Linear"):
        add_adapters(model, handlers.QWEN3_DENSE_HANDLER, config)
    assert not list(adapters_of(model))
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_model_without_adapters_has_none_to_export(tmp_path: Path) -> None:
    from art.megatron.adapters.peft import export_adapter

    with pytest.raises(ConfigurationError, match="no adapters"):
        export_adapter(
            base_model("qwen3_dense"),
            handlers.QWEN3_DENSE_HANDLER,
            tmp_path,
            base_model="tiny/base",
        )


def test_adapters_of_bfloat16_models_are_float32() -> None:
    model = adapted_model("qwen3_dense", dtype=torch.bfloat16)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert {parameter.dtype for parameter in trained} == {torch.float32}
    for parameter in trained:
        torch.nn.init.normal_(parameter)
    model(torch.zeros(1, 4, dtype=torch.long), torch.arange(4)[None], None).float().sum().backward()
    assert {gradient.grad.dtype for gradient in trained if gradient.grad is not None} == {
        torch.float32
    }
    assert all(parameter.grad is not None for parameter in trained)
