"""The completed config of a model: ART's defaults where they are what runs, and nothing else."""

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from art.dev.get_model_config import get_model_config
from art.dev.model import InternalModelConfig
from art.errors import ConfigurationError, UnsupportedModelArchitectureError

QWEN3 = "Qwen/Qwen3-4B-Instruct-2507"
DENSE = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def default_config(base_model: str, target_modules: list[str]) -> dict[str, Any]:
    return {
        "init_args": {"model_name": base_model},
        "peft_args": {
            "r": 8,
            "lora_alpha": 32,
            "random_state": 3407,
            "target_modules": target_modules,
        },
        "tinker_args": {
            "training_client_args": {
                "rank": 8,
                "seed": 3407,
                "train_attn": True,
                "train_mlp": True,
                "train_unembed": False,
            }
        },
        "rollout_weights_mode": "lora",
        "allow_unvalidated_arch": True,
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
@pytest.mark.parametrize("user", [None, {}, {"engine_args": {}, "trainer_args": {}}])
def test_defaults_follow_from_the_base_model(
    tmp_path: Path, base_model: str, target_modules: list[str], user: Any
) -> None:
    config = get_model_config(base_model=base_model, output_dir=str(tmp_path), config=user)
    assert config == default_config(base_model, target_modules)


USERS: list[InternalModelConfig] = [
    {"peft_args": {"r": 32, "random_state": None}},
    {"peft_args": {"r": 16}, "tinker_args": {"training_client_args": {"rank": 16}}},
    {"peft_args": {"lora_alpha": 32, "target_modules": DENSE[::-1]}},
    {"tinker_args": {"training_client_args": {"rank": 4, "seed": 5, "train_mlp": False}}},
    {"tinker_args": {"training_client_args": {"user_metadata": {"team": "a"}}}},
    {"tinker_args": None, "chat_template": "{{ messages }}", "chat_template_kwargs": {"a": 1}},
    {"rollout_weights_mode": "lora", "allow_unvalidated_arch": False},
]


@pytest.mark.parametrize("user", USERS, ids=str)
def test_a_completed_config_completes_to_itself(tmp_path: Path, user: InternalModelConfig) -> None:
    before = copy.deepcopy(user)
    config = get_model_config(QWEN3, tmp_path, user)
    assert get_model_config(QWEN3, tmp_path, config) == config
    assert user == before


def test_the_rank_and_the_seed_have_two_names() -> None:
    by_peft = get_model_config(QWEN3, "", {"peft_args": {"r": 16, "random_state": 1}})
    by_tinker = get_model_config(
        QWEN3, "", {"tinker_args": {"training_client_args": {"rank": 16, "seed": 1}}}
    )
    assert by_peft == by_tinker
    assert (by_peft["peft_args"]["r"], by_peft["peft_args"]["random_state"]) == (16, 1)


def test_the_modules_of_chosen_parts_are_left_to_the_server() -> None:
    config = get_model_config(
        QWEN3, "", {"tinker_args": {"training_client_args": {"train_mlp": False}}}
    )
    assert "target_modules" not in config["peft_args"]


def test_the_result_shares_no_list_with_the_users_config() -> None:
    user: InternalModelConfig = {"chat_template_kwargs": {"tools": ["a"]}}
    get_model_config(QWEN3, "", user)["chat_template_kwargs"]["tools"].append("b")
    assert user == {"chat_template_kwargs": {"tools": ["a"]}}


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ({"peft_args": {"lora_alpha": 16}}, r"lora_alpha is 16, but every adapter has 32"),
        ({"peft_args": {"target_modules": ["q_proj"]}}, "target_modules.*train_attn"),
        (
            {
                "peft_args": {"target_modules": DENSE},
                "tinker_args": {"training_client_args": {"train_unembed": True}},
            },
            "chosen by the server",
        ),
        ({"peft_args": {"r": 0}}, "integer from 1, not 0"),
        ({"peft_args": {"r": "8"}}, "integer from 1, not '8'"),
        ({"peft_args": {"r": True}}, "integer from 1, not True"),
        (
            {"peft_args": {"r": 8}, "tinker_args": {"training_client_args": {"rank": 16}}},
            "rank of the adapter is 8 in peft_args and 16 in tinker_args",
        ),
        (
            {
                "peft_args": {"random_state": 1},
                "tinker_args": {"training_client_args": {"seed": 2}},
            },
            "seed of the adapter is 1",
        ),
        ({"init_args": {"model_name": "elsewhere"}}, "name the weights by base_model"),
        ({"rollout_weights_mode": "merged"}, "can only be 'lora'"),
        ({"trainer_args": {"learning_rate": 1e-4}}, r"backend\.train\(learning_rate=…\)"),
    ],
)
def test_what_does_not_run_is_refused(tmp_path: Path, user: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        get_model_config(QWEN3, tmp_path, user)


def test_models_that_the_registry_does_not_list_can_be_refused() -> None:
    with pytest.raises(UnsupportedModelArchitectureError, match="somebody/new"):
        get_model_config("somebody/new", "", {"allow_unvalidated_arch": False})


def test_training_goes_on_from_the_last_checkpoint(tmp_path: Path) -> None:
    for step in (2, 10):
        (tmp_path / "checkpoints" / f"{step:04d}").mkdir(parents=True)
    last = str(tmp_path / "checkpoints" / "0010")
    assert get_model_config(QWEN3, tmp_path, None)["init_args"]["model_name"] == last
    earlier: InternalModelConfig = {
        "init_args": {"model_name": str(tmp_path / "checkpoints" / "0002")}
    }
    assert get_model_config(QWEN3, tmp_path, earlier)["init_args"]["model_name"] == last


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
