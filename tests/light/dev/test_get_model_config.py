"""The config that OpenPipe ART 0.5.18 makes, written out."""

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from art.dev.get_model_config import get_model_config
from art.dev.model import InternalModelConfig

QWEN3 = "Qwen/Qwen3-4B-Instruct-2507"
DENSE = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def arts_config(base_model: str, output_dir: str, target_modules: list[str]) -> dict[str, Any]:
    return {
        "init_args": {"load_in_4bit": True, "max_seq_length": 32768, "model_name": base_model},
        "engine_args": {
            "allowed_local_media_path": "/tmp",
            "enable_sleep_mode": True,
            "generation_config": "vllm",
            "model": base_model,
            "lora_target_modules": target_modules,
        },
        "peft_args": {
            "lora_alpha": 16,
            "r": 8,
            "random_state": 3407,
            "target_modules": target_modules,
            "use_gradient_checkpointing": "unsloth",
        },
        "rollout_weights_mode": "lora",
        "tinker_args": None,
        "trainer_args": {
            "adam_beta1": 0.9,
            "adam_beta2": 0.99,
            "disable_tqdm": True,
            "gradient_accumulation_steps": 1,
            "gradient_checkpointing": True,
            "learning_rate": 5e-6,
            "logging_steps": 1,
            "lr_scheduler_type": "constant",
            "max_grad_norm": 0.1,
            "num_generations": 2,
            "optim": "paged_adamw_8bit",
            "output_dir": output_dir,
            "per_device_train_batch_size": 2,
            "report_to": "none",
            "save_strategy": "no",
            "weight_decay": 0.1,
        },
    }


@pytest.mark.parametrize(
    ("base_model", "target_modules"),
    [
        (QWEN3, DENSE),
        ("Qwen/Qwen3-30B-A3B-Instruct-2507", [*DENSE, "experts"]),
        (
            "Qwen/Qwen3.5-4B",
            [*DENSE[:4], "in_proj_qkv", "in_proj_z", "out_proj", *DENSE[4:]],
        ),
        ("somebody/a-model-that-nobody-registered", DENSE),
    ],
)
def test_defaults(tmp_path: Path, base_model: str, target_modules: list[str]) -> None:
    config = get_model_config(base_model=base_model, output_dir=str(tmp_path), config=None)
    assert config == arts_config(base_model, str(tmp_path), target_modules)
    assert get_model_config(base_model, str(tmp_path), {}) == config


def test_the_users_values_go_first(tmp_path: Path) -> None:
    user: InternalModelConfig = {
        "init_args": {"load_in_4bit": False, "max_seq_length": 4096},
        "engine_args": {"max_model_len": 4096, "enable_sleep_mode": False},
        "peft_args": {"r": 32, "target_modules": ["q_proj"]},
        "trainer_args": {"learning_rate": 1e-4},
        "tinker_args": {"training_client_args": {"rank": 16}},
        "allow_unvalidated_arch": True,
    }
    before = copy.deepcopy(user)
    expected = arts_config(QWEN3, str(tmp_path), ["q_proj"])
    expected["init_args"] |= {"load_in_4bit": False, "max_seq_length": 4096}
    expected["engine_args"] |= {"max_model_len": 4096, "enable_sleep_mode": False}
    expected["peft_args"]["r"] = 32
    expected["trainer_args"]["learning_rate"] = 1e-4
    expected["tinker_args"] = {"training_client_args": {"rank": 16}}
    expected["allow_unvalidated_arch"] = True
    config = get_model_config(QWEN3, str(tmp_path), user)
    assert config == expected
    config["peft_args"]["target_modules"].append("k_proj")
    assert config["engine_args"]["lora_target_modules"] == ["q_proj"]
    assert user == before


def test_target_modules_of_the_engine_can_differ(tmp_path: Path) -> None:
    config = get_model_config(
        QWEN3, str(tmp_path), {"engine_args": {"lora_target_modules": ["v_proj"]}}
    )
    assert config["engine_args"]["lora_target_modules"] == ["v_proj"]
    assert config["peft_args"]["target_modules"] == DENSE


def test_dedicated_mode(tmp_path: Path) -> None:
    config = get_model_config(
        QWEN3,
        str(tmp_path),
        {"trainer_gpu_ids": [0], "inference_gpu_ids": [1], "rollout_weights_mode": "merged"},
    )
    assert config["engine_args"]["enable_sleep_mode"] is False
    assert "lora_target_modules" not in config["engine_args"]
    assert (config["trainer_gpu_ids"], config["inference_gpu_ids"]) == ([0], [1])
    assert config["rollout_weights_mode"] == "merged"


def test_the_last_checkpoint_is_what_is_loaded(tmp_path: Path) -> None:
    for step in (2, 10):
        (tmp_path / "checkpoints" / f"{step:04d}").mkdir(parents=True)
    user: InternalModelConfig = {"init_args": {"model_name": "elsewhere"}}
    config = get_model_config(QWEN3, str(tmp_path), user)
    assert config["init_args"]["model_name"] == str(tmp_path / "checkpoints" / "0010")
    assert config["engine_args"]["model"] == QWEN3


def test_asking_makes_no_folder(tmp_path: Path) -> None:
    get_model_config(QWEN3, str(tmp_path / "absent"), None)
    assert not (tmp_path / "absent").exists()


def test_it_needs_neither_pydantic_nor_openai() -> None:
    code = (
        "import sys, art; from art.dev.get_model_config import get_model_config as f; "
        "f('Qwen/Qwen3-4B', 'nowhere', None); art.dev.InternalModelConfig; "
        "art.dev.OpenAIServerConfig; art.dev.validate_dedicated_config; "
        "assert not {'pydantic', 'openai', 'numpy', 'torch', 'megatron'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
