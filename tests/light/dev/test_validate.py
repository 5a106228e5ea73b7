"""Options by ART's names: each that has no effect is refused by name, with advice."""

import re
from typing import Any

import pytest

import art
from art.dev import is_dedicated_mode, validate_dedicated_config
from art.dev.get_server_args import get_server_args
from art.errors import ConfigurationError

# Options that ART's own examples, notebooks and documentation set, and the advice for each.
WITHOUT_EFFECT = [
    ({"trainer_args": {"learning_rate": 1e-4}}, "backend.train(learning_rate=…)"),
    ({"trainer_args": {"max_grad_norm": 0.1}}, "backend.train(grad_clip_norm=…)"),
    ({"trainer_args": {"adam_epsilon": 1e-8}}, "backend.train(eps=…)"),
    ({"trainer_args": {"gradient_accumulation_steps": 4}}, "art.TrainConfig"),
    ({"init_args": {"load_in_4bit": True}}, "art.LocalBackend(dtype=…)"),
    ({"init_args": {"max_seq_length": 8192}}, "the base model's"),
    ({"init_args": {"gpu_memory_utilization": 0.8}}, "art.LocalBackend()"),
    ({"engine_args": {"tensor_parallel_size": 2}}, "no vLLM runs behind the endpoint"),
    ({"engine_args": {"enable_sleep_mode": True}}, "no vLLM runs behind the endpoint"),
    ({"peft_args": {"lora_dropout": 0.1}}, "without dropout"),
    ({"trainer_gpu_ids": [0]}, "art.LocalBackend(device=…)"),
    ({"inference_gpu_ids": [1]}, "art.LocalBackend(device=…)"),
]


@pytest.mark.parametrize(("config", "advice"), WITHOUT_EFFECT, ids=lambda value: str(value)[:50])
def test_an_option_without_an_effect_is_refused_with_advice(config: Any, advice: str) -> None:
    path = option_path(config)
    message = f"internal_config.{path} has no effect in art: "
    with pytest.raises(ConfigurationError, match=re.escape(message) + ".*" + re.escape(advice)):
        validate_dedicated_config(config)
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        art.TrainableModel(name="m", project="p", base_model="b", internal_config=config)


def option_path(config: dict[str, Any]) -> str:
    ((name, value),) = config.items()
    return f"{name}.{next(iter(value))}" if isinstance(value, dict) else name


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_arg": {}}, "Did you mean 'peft_args'?"),
        ({"peft_args": {"random_stat": 1}}, "Did you mean 'random_state'?"),
        (
            {"tinker_args": {"training_client_args": {"train_mpl": False}}},
            "training_client_args.train_mpl has no effect in art. Did you mean 'train_mlp'?",
        ),
        (
            {"peft_args": {"zzz": 1}},
            "internal_config.peft_args takes r, lora_alpha, random_state, target_modules",
        ),
        ({"peft_args": 8}, "internal_config.peft_args must be a dict of options, not int"),
        ({"rollout_weights_mode": "merged"}, "'merged'; it can only be 'lora'"),
    ],
    ids=str,
)
def test_a_typo_is_refused_with_the_near_name(config: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        validate_dedicated_config(config)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"rollout_weights_mode": "lora", "tinker_args": None},
        {"init_args": {}, "engine_args": {}, "trainer_args": {}},
        {"peft_args": {"r": 8, "lora_alpha": 32, "random_state": 1, "target_modules": []}},
        {"chat_template": "", "chat_template_kwargs": {"any": "name"}},
    ],
    ids=str,
)
def test_options_with_an_effect_are_taken(config: Any) -> None:
    validate_dedicated_config(config)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"log_file": "x"}, "endpoint_config.log_file has no effect"),
        ({"engine_args": {"model": "x"}}, "name the weights by base_model"),
        (
            {"server_args": {"tool_call_parser": "hermes"}},
            "endpoint_config.server_args.tool_call_parser has no effect in art: tool calls",
        ),
        ({"server_args": {"prot": 8000}}, "Did you mean 'port'?"),
    ],
    ids=str,
)
def test_an_endpoints_option_without_an_effect_is_refused(config: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        get_server_args(config)


@pytest.mark.parametrize("config", [None, {}, {"server_args": {}, "engine_args": {}}], ids=str)
def test_an_endpoint_listens_on_a_free_port_of_loopback_by_default(config: Any) -> None:
    assert get_server_args(config) == {
        "host": "127.0.0.1",
        "port": 0,
        "api_key": None,
        "chat_template": None,
        "strict": False,
    }


@pytest.mark.parametrize(
    ("config", "dedicated"),
    [
        ({}, False),
        ({"trainer_gpu_ids": [0]}, False),
        ({"trainer_gpu_ids": [0], "inference_gpu_ids": [1]}, True),
    ],
    ids=str,
)
def test_dedicated_mode_is_recognized(config: Any, dedicated: bool) -> None:
    assert is_dedicated_mode(config) is dedicated
