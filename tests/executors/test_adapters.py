"""Adapters beside one base model: created, saved, loaded, and read by PEFT."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from art.errors import CheckpointError, InvalidRequestError, NotFoundError
from art.executors.torch.executor import TorchExecutor
from art.executors.types import LoraConfig
from tests.executors.torch_cases import (
    CROSS_ENTROPY,
    LORA,
    STEP,
    copies,
    datum,
    parameters,
    plain_logprobs,
    unchanged,
)

NOTHING = LoraConfig(rank=2, alpha=4, seed=0, train_attn=False, train_mlp=False)


def test_a_new_adapter_answers_as_the_base_does(executor: TorchExecutor) -> None:
    executor.create_model("new", replace(LORA, train_unembed=True))
    found = parameters(executor, "new")
    assert all(not p.any() for key, p in found.items() if "lora_B" in key)
    assert {key.split(".")[-3] for key in found} >= {"q_proj", "down_proj", "lm_head"}
    each = datum(range(9))
    result = executor.forward_backward("new", [each], CROSS_ENTROPY, backward=False)
    plain = plain_logprobs(executor, None, each).detach()
    np.testing.assert_allclose(result.outputs[0]["logprobs"], plain, atol=1e-5)
    executor.unload_model("new")


def test_the_seed_is_an_adapters_start(executor: TorchExecutor) -> None:
    generator = torch.get_rng_state()
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        executor.create_model(name, replace(LORA, seed=seed))
    a, b, c = (copies(executor, name) for name in "abc")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert any(not torch.equal(a[key], c[key]) for key in a)
    assert torch.equal(torch.get_rng_state(), generator)
    for name in "abc":
        executor.unload_model(name)


@pytest.mark.parametrize(
    ("part", "module"),
    [("train_attn", "q_proj"), ("train_mlp", "up_proj"), ("train_unembed", "lm_head")],
)
def test_a_part_alone_is_adapted_and_read_back(
    executor: TorchExecutor, part: str, module: str, tmp_path: Path
) -> None:
    lora = replace(NOTHING, **{part: True})
    executor.create_model("part", lora)
    keys = parameters(executor, "part")
    assert any(module in key for key in keys)
    assert len({"mlp" in key for key in keys}) == 1
    executor.save_weights("part", tmp_path, optimizer=False)
    assert executor.lora_config_of(tmp_path) == replace(lora, seed=None)
    executor.unload_model("part")


@pytest.mark.parametrize(
    ("name", "lora", "message"),
    [
        ("model", LORA, "already"),
        ("other", NOTHING, "nothing to train"),
        ("other", LoraConfig(rank=0, alpha=1), "rank"),
        ("other", LoraConfig(rank=1, alpha=float("nan")), "alpha"),
    ],
)
def test_a_model_that_cannot_be_made_is_refused(
    executor: TorchExecutor, model: str, name: str, lora: LoraConfig, message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        executor.create_model(name, lora)


def test_an_adapter_that_was_removed_is_gone(executor: TorchExecutor, tmp_path: Path) -> None:
    executor.create_model("gone", LORA)
    executor.unload_model("gone")
    with pytest.raises(NotFoundError, match="'gone'"):
        executor.save_weights("gone", tmp_path, optimizer=False)
    with pytest.raises(NotFoundError, match="'gone'"):
        executor.unload_adapter("gone")


def test_a_checkpoint_resumes_bit_for_bit(
    executor: TorchExecutor, tiny_model: Path, model: str, tmp_path: Path
) -> None:
    def train(trainer: TorchExecutor, name: str, steps: Iterable[int]) -> None:
        for step in steps:
            trainer.forward_backward(name, [datum(range(20), step)], CROSS_ENTROPY, backward=True)
            trainer.optim_step(name, STEP)

    train(executor, model, range(3))
    executor.save_weights(model, tmp_path, optimizer=True)
    assert float(load_file(tmp_path / "optimizer.safetensors")["step"]) == 3
    train(executor, model, [3])

    elsewhere = TorchExecutor(tiny_model, device="cpu", max_tokens_per_pass=64)
    elsewhere.create_model("again", elsewhere.lora_config_of(tmp_path))
    elsewhere.load_weights("again", tmp_path, optimizer=True)
    train(elsewhere, "again", [3])
    assert unchanged(elsewhere, "again", copies(executor, model))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`")  # PEFT's own
def test_a_saved_adapter_is_one_for_peft(
    executor: TorchExecutor, tiny_model: Path, model: str, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    executor.save_weights(model, tmp_path, optimizer=False)
    each = datum(range(12))
    ours = executor.forward_backward(model, [each], CROSS_ENTROPY, backward=False)
    peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), tmp_path)
    with torch.no_grad():
        logits = peft(torch.tensor(each.tokens)[None]).logits[0]
    theirs = torch.log_softmax(logits, -1)[range(12), each.loss_inputs["target_tokens"]]
    np.testing.assert_allclose(ours.outputs[0]["logprobs"], theirs, atol=1e-5)


@pytest.mark.parametrize("targets", [["q_proj", "up_proj"], r".*\.(q_proj|up_proj)", "all-linear"])
def test_the_parts_of_a_foreign_adapter_are_those_that_its_names_fit(
    executor: TorchExecutor, targets: list[str] | str, tmp_path: Path
) -> None:
    config = {"r": 3, "lora_alpha": 6, "target_modules": targets}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    found = executor.lora_config_of(tmp_path)
    assert (found.rank, found.alpha, found.train_attn, found.train_mlp) == (3, 6, True, True)


def test_an_adapter_of_another_architecture_is_refused(
    executor: TorchExecutor, tmp_path: Path
) -> None:
    (tmp_path / "adapter_config.json").write_text(
        '{"r": 3, "lora_alpha": 6, "target_modules": ["c_attn"]}'
    )
    with pytest.raises(CheckpointError, match="c_attn"):
        executor.lora_config_of(tmp_path)


def test_a_checkpoint_of_another_rank_changes_nothing(
    executor: TorchExecutor, model: str, tmp_path: Path
) -> None:
    executor.create_model("wide", replace(LORA, rank=8))
    executor.save_weights("wide", tmp_path, optimizer=False)
    executor.unload_model("wide")
    before = copies(executor, model)
    with pytest.raises(CheckpointError, match=r"rank 8.*rank 4"):
        executor.load_weights(model, tmp_path, optimizer=False)
    assert unchanged(executor, model, before)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("optimizer.safetensors", None, r"optimizer\.safetensors"),
        ("adapter_model.safetensors", b"damaged", "cannot read"),
        ("adapter_model.safetensors", None, "cannot read"),
    ],
)
def test_a_damaged_checkpoint_changes_nothing(
    executor: TorchExecutor,
    model: str,
    file: str,
    content: bytes | None,
    message: str,
    tmp_path: Path,
) -> None:
    executor.save_weights(model, tmp_path, optimizer=True)
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_bytes(content)
    before = copies(executor, model)
    with pytest.raises(CheckpointError, match=message):
        executor.load_weights(model, tmp_path, optimizer=True)
    assert unchanged(executor, model, before)


def test_a_folder_without_an_adapter_is_not_loaded(executor: TorchExecutor, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no readable LoRA"):
        executor.load_adapter("absent", tmp_path / "absent")
    with pytest.raises(NotFoundError, match="'absent'"):
        executor.unload_adapter("absent")
