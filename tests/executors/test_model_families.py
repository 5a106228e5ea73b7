"""Sampling, training and adapters of each family, against transformers and PEFT themselves."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from art.errors import InvalidRequestError
from art.executors.torch.executor import TorchExecutor
from art.executors.types import Datum, LoraConfig
from art.megatron.model_support.registry import list_model_support_specs
from tests.executors.tiny_families import FAMILIES, Family, save_family
from tests.executors.torch_cases import (
    CROSS_ENTROPY,
    datum,
    gradients,
    next_token_datum,
    plain_logprobs,
    randomise,
    request,
    sample,
)

LORA = LoraConfig(rank=4, alpha=8, seed=1)
EXPERTS = LoraConfig(rank=4, alpha=8, seed=1, train_attn=False)
by_name = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
with_experts = pytest.mark.parametrize(
    "family",
    [family for family in FAMILIES if any("num" in f and "experts" in f for f in family.fields)],
    ids=lambda family: family.name,
)
registered = pytest.mark.parametrize(
    "family",
    [family for family in FAMILIES if family.registered],
    ids=lambda family: family.name,
)


def _executor(tiny_model: Path, folder: Path, family: Family, lora: LoraConfig) -> TorchExecutor:
    """An executor with a model, and its adapter loaded to sample from and saved in `adapter`."""
    executor = TorchExecutor(save_family(family, tiny_model, folder / "base"), device="cpu")
    executor.create_model("model", lora)
    randomise(executor, "model", 0.05)
    (folder / "adapter").mkdir()
    executor.save_weights("model", folder / "adapter", optimizer=False)
    executor.load_adapter("adapter", folder / "adapter")
    return executor


def _peft(folder: Path, *, trainable: bool = False) -> Any:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    return PeftModel.from_pretrained(base, folder / "adapter", is_trainable=trainable).eval()


def _logprobs(model: Any, datum: Datum) -> torch.Tensor:
    logits = model(torch.tensor(datum.tokens)[None], use_cache=False).logits[0].float()
    targets = torch.tensor(datum.loss_inputs["target_tokens"])
    return torch.log_softmax(logits, -1).gather(1, targets[:, None]).squeeze(1)


@by_name
def test_sampling_training_and_the_plain_forward_agree(
    tiny_model: Path, tmp_path: Path, family: Family
) -> None:
    executor = _executor(tiny_model, tmp_path, family, LORA)
    assert executor._language_model.takes_tree_mask is family.takes_tree_mask
    prompts = [np.arange(100, 100 + length) for length in (20, 5, 20, 31)]
    requests = [
        request(prompt, "adapter", num_samples=2, max_tokens=8 + n, seed=n, stop_token_ids=(0,))
        for n, prompt in enumerate(prompts)
    ]
    data, sampled = [], []
    for prompt, result in zip(prompts, sample(executor, requests), strict=True):
        for sequence in result.sequences:
            data.append(next_token_datum(np.concatenate([prompt, sequence.tokens])))
            sampled.append(sequence.logprobs)
    trained = executor.forward_backward("model", data, CROSS_ENTROPY, backward=True)
    for each, output, logprobs in zip(data, trained.outputs, sampled, strict=True):
        computed = output["logprobs"]
        np.testing.assert_allclose(computed[-len(logprobs) :], logprobs, atol=family.tolerance)
        with torch.no_grad():
            plain = plain_logprobs(executor, "model model", each)
            base = plain_logprobs(executor, None, each)
        np.testing.assert_allclose(computed, plain, atol=family.tolerance)
        assert (plain - base).abs().max() > 10 * family.tolerance


@registered
def test_what_is_adapted_is_what_the_registry_says(
    tiny_model: Path, tmp_path: Path, family: Family
) -> None:
    executor = TorchExecutor(save_family(family, tiny_model, tmp_path / "base"), device="cpu")
    (spec,) = [spec for spec in list_model_support_specs() if spec.key == family.registered]
    wanted = set(spec.default_target_modules)
    expected = {
        name
        for name, module in executor._language_model.model.named_modules()
        if name.split(".")[-1] in wanted
    }
    assert {name.split(".")[-1] for name in expected} == wanted
    executor.create_model("model", LORA)
    executor.save_weights("model", tmp_path, optimizer=False)
    assert _adapted_modules(tmp_path) == expected
    # The configuration names no module beside them, so that PEFT adapts no more.
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    leaves = {name.split(".")[-1] for name in config["target_modules"]}
    assert leaves <= wanted


def _adapted_modules(folder: Path) -> set[str]:
    keys = load_file(folder / "adapter_model.safetensors")
    return {
        key.removeprefix("base_model.model.").replace(".base_layer", "").partition(".lora_")[0]
        for key in keys
    }


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`")  # PEFT's own
@with_experts
def test_adapted_experts_are_those_that_peft_reads_and_merges(
    tiny_model: Path, tmp_path: Path, family: Family
) -> None:
    executor = _executor(tiny_model, tmp_path, family, EXPERTS)
    assert any(name.endswith(".experts") for name in _adapted_modules(tmp_path / "adapter"))
    each = datum(range(100, 130))
    ours = executor.forward_backward("model", [each], CROSS_ENTROPY, backward=False)
    peft = _peft(tmp_path)
    with torch.no_grad():
        read = _logprobs(peft, each)
        merged = _logprobs(peft.merge_and_unload(), each)
        base = plain_logprobs(executor, None, each)
    np.testing.assert_allclose(ours.outputs[0]["logprobs"], read, atol=1e-5)
    np.testing.assert_allclose(merged, read, atol=family.tolerance)
    assert (read - base).abs().max() > 1e-2


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`")  # PEFT's own
@with_experts
def test_gradients_of_experts_are_those_of_peft(
    tiny_model: Path, tmp_path: Path, family: Family
) -> None:
    executor = _executor(tiny_model, tmp_path, family, EXPERTS)
    each = datum(range(100, 130))
    executor.forward_backward("model", [each], CROSS_ENTROPY, backward=True)
    peft = _peft(tmp_path, trainable=True)
    weights = torch.from_numpy(each.loss_inputs["weights"])
    (-(weights * _logprobs(peft, each)).sum()).backward()
    theirs = {
        name.replace(".default.", "."): parameter.grad
        for name, parameter in peft.named_parameters()
        if parameter.requires_grad
    }
    ours = gradients(executor, "model")
    assert ours.keys() == theirs.keys()
    scale = max(float(gradient.abs().max()) for gradient in ours.values())
    for key, gradient in ours.items():
        assert gradient.any(), key
        torch.testing.assert_close(gradient, theirs[key], rtol=1e-3, atol=1e-5 * scale)


@with_experts
def test_adapters_with_and_without_experts_stand_side_by_side(
    tiny_model: Path, tmp_path: Path, family: Family
) -> None:
    executor = TorchExecutor(save_family(family, tiny_model, tmp_path / "base"), device="cpu")
    each = datum(range(100, 120))
    loras = {
        "attention": LoraConfig(rank=2, alpha=4, seed=1, train_mlp=False),
        "experts": EXPERTS,
        "both": LORA,
    }
    alone = {}
    for name, lora in loras.items():
        executor.create_model(name, lora)
        randomise(executor, name, 0.05)
        with torch.no_grad():
            alone[name] = plain_logprobs(executor, f"model {name}", each)
        executor.save_weights(name, _new(tmp_path / name), optimizer=False)
        assert executor.lora_config_of(tmp_path / name).train_mlp is lora.train_mlp
    executor.unload_model("experts")
    executor.create_model("experts", EXPERTS)
    executor.load_weights("experts", tmp_path / "experts", optimizer=False)
    for name, expected in alone.items():
        found = executor.forward_backward(name, [each], CROSS_ENTROPY, backward=False)
        np.testing.assert_allclose(found.outputs[0]["logprobs"], expected, atol=1e-5)


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


@with_experts
def test_nothing_warns_where_experts_are_adapted(
    tiny_model: Path, tmp_path: Path, family: Family
) -> None:
    folder = save_family(family, tiny_model, tmp_path / "base")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        executor = TorchExecutor(folder, device="cpu")
        for name in ("a", "b"):
            executor.create_model(name, LORA)
        executor.forward_backward("a", [datum(range(9))], CROSS_ENTROPY, backward=True)
        executor.unload_model("b")


def test_experts_that_cannot_be_adapted_are_refused_by_name(
    tiny_model: Path, tmp_path: Path
) -> None:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model)
    config = transformers.DbrxConfig(
        d_model=64,
        n_heads=4,
        n_layers=1,
        max_seq_len=64,
        vocab_size=len(tokenizer),
        attn_config={"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1e4},
        ffn_config={"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
    )
    transformers.DbrxForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    executor = TorchExecutor(tmp_path, device="cpu")
    with pytest.raises(InvalidRequestError, match=r"experts\.mlp\.w1 is \[128, 64\].*train_mlp"):
        executor.create_model("model", LORA)
    executor.create_model("model", LoraConfig(rank=2, alpha=4, seed=1, train_mlp=False))
