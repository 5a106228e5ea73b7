"""The full config of a trainable model, from a user's part of it."""

import copy
import os

from art.dev.engine import EngineArgs
from art.dev.model import InitArgs, InternalModelConfig, PeftArgs, TrainerArgs
from art.dev.validate import is_dedicated_mode
from art.megatron.model_support.registry import default_target_modules_for_model
from art.runs.paths import checkpoint_dir, checkpoint_steps


def get_model_config(
    base_model: str, output_dir: str | os.PathLike[str], config: InternalModelConfig | None
) -> InternalModelConfig:
    """Fill in a model's config with ART's defaults.

    Args:
        base_model: The base model's name; says which modules get an adapter.
        output_dir: The model's folder. Its last checkpoint, if there is one, becomes
            ``init_args["model_name"]``.
        config: The user's values, which go before the defaults; ``None`` is none.

    Returns:
        A new config; ``config`` is not changed.
    """
    # A copy, so that changing the result cannot change the user's lists.
    config = {} if config is None else copy.deepcopy(config)
    user_engine_args = config.get("engine_args", {})
    rollout_weights_mode = config.get("rollout_weights_mode", "lora")
    peft_args: PeftArgs = {**_default_peft_args(base_model), **config.get("peft_args", {})}
    # In dedicated mode the engine keeps its GPU, so it never sleeps.
    enable_sleep_mode = not is_dedicated_mode(config)
    engine_args: EngineArgs = {
        "allowed_local_media_path": "/tmp",
        "enable_sleep_mode": enable_sleep_mode,
        "generation_config": "vllm",
        "model": base_model,
        **user_engine_args,
    }
    if rollout_weights_mode == "lora" and "lora_target_modules" not in user_engine_args:
        engine_args["lora_target_modules"] = list(peft_args["target_modules"])
    result: InternalModelConfig = {
        "init_args": _init_args(base_model, output_dir, config.get("init_args", {})),
        "engine_args": engine_args,
        "peft_args": peft_args,
        "rollout_weights_mode": rollout_weights_mode,
        "tinker_args": config.get("tinker_args"),
        "trainer_args": {
            **_default_trainer_args(os.fspath(output_dir)),
            **config.get("trainer_args", {}),
        },
    }
    if "chat_template" in config:
        result["chat_template"] = config["chat_template"]
    if "chat_template_kwargs" in config:
        result["chat_template_kwargs"] = config["chat_template_kwargs"]
    if "allow_unvalidated_arch" in config:
        result["allow_unvalidated_arch"] = config["allow_unvalidated_arch"]
    if "trainer_gpu_ids" in config:
        result["trainer_gpu_ids"] = config["trainer_gpu_ids"]
    if "inference_gpu_ids" in config:
        result["inference_gpu_ids"] = config["inference_gpu_ids"]
    return result


def _init_args(base_model: str, output_dir: str | os.PathLike[str], user: InitArgs) -> InitArgs:
    args: InitArgs = {
        "load_in_4bit": True,
        "max_seq_length": 32768,
        "model_name": base_model,
        **user,
    }
    if steps := checkpoint_steps(output_dir):
        args["model_name"] = str(checkpoint_dir(output_dir, steps[-1]))
    return args


def _default_peft_args(base_model: str) -> PeftArgs:
    return {
        "lora_alpha": 16,
        "r": 8,
        "random_state": 3407,
        "target_modules": default_target_modules_for_model(base_model, allow_unvalidated_arch=True),
        "use_gradient_checkpointing": "unsloth",
    }


def _default_trainer_args(output_dir: str) -> TrainerArgs:
    return {
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
    }
