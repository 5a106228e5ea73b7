"""Advice for options of ART that have no effect in art: the option to set instead."""

from collections.abc import Mapping

_LEARNING_RATE = "the learning rate is set per step: backend.train(learning_rate=…)"
_GPUS = "GPUs are chosen where the engine is started: art.LocalBackend(device=…) or `art serve`"
_DTYPE = (
    "base models are loaded at full width; choose the width by art.LocalBackend(dtype=…), or "
    "`art serve --dtype`"
)
_CONTEXT = "the context is as long as the base model's"
_BASE_MODEL = "name the weights by base_model"
_SAMPLING = "sampling is set per request: chat.completions.create(temperature=…, max_tokens=…)"
_CHECKPOINTS = "every step is saved; delete checkpoints by model.delete_checkpoints()"
_LOGGING = "metrics are logged by model.log(metrics=…)"
_MODULES = (
    'choose the adapted modules by tinker_args={"training_client_args": {"train_attn": …, '
    '"train_mlp": …, "train_unembed": …}}'
)
_TOOL_CALLS = "tool calls are always read, in the format of the model's chat template"


def _per_step(option: str) -> str:
    return f"it is set per step: backend.train({option}=…)"


# By section, as it is called below `internal_config` or `endpoint_config`, and option.
_REMEDIES: Mapping[str, Mapping[str, str]] = {
    "": {
        "trainer_gpu_ids": _GPUS,
        "inference_gpu_ids": _GPUS,
    },
    "init_args": {
        "device_map": _GPUS,
        "dtype": _DTYPE,
        "full_finetuning": "art trains LoRA adapters only",
        "load_in_4bit": _DTYPE,
        "load_in_8bit": _DTYPE,
        "load_in_16bit": _DTYPE,
        "max_lora_rank": "the rank is peft_args={'r': …}",
        "max_seq_length": _CONTEXT,
        "random_state": "the adapter's seed is peft_args={'random_state': …}",
    },
    "engine_args": {
        "dtype": _DTYPE,
        "lora_target_modules": _MODULES,
        "max_lora_rank": "the rank is peft_args={'r': …}",
        "max_model_len": _CONTEXT,
        "model": _BASE_MODEL,
        "seed": "a request is seeded by chat.completions.create(seed=…)",
        "tokenizer": "the tokenizer is the base model's",
    },
    "peft_args": {
        "bias": "an adapter trains no bias",
        "lora_dropout": "adapters are trained without dropout",
        "max_seq_length": _CONTEXT,
        "modules_to_save": "an adapter holds LoRA weights only",
        "use_rslora": "the scale of an adapter is lora_alpha / r",
    },
    "tinker_args.training_client_args": {
        "base_model": _BASE_MODEL,
    },
    "trainer_args": {
        "adam_beta1": _per_step("beta1"),
        "adam_beta2": _per_step("beta2"),
        "adam_epsilon": _per_step("eps"),
        "beta": _per_step("kl_penalty_coef"),
        "bf16": _DTYPE,
        "fp16": _DTYPE,
        "learning_rate": _LEARNING_RATE,
        "lr_scheduler_type": _LEARNING_RATE,
        "max_completion_length": _SAMPLING,
        "max_grad_norm": _per_step("grad_clip_norm"),
        "max_prompt_length": _CONTEXT,
        "num_generations": "a group has as many rollouts as art.TrajectoryGroup is given",
        "optim": "the optimizer is AdamW",
        "output_dir": "state is kept under art.LocalBackend(path=…) or art.TinkerBackend(path=…)",
        "report_to": _LOGGING,
        "save_steps": _CHECKPOINTS,
        "save_strategy": _CHECKPOINTS,
        "save_total_limit": _CHECKPOINTS,
        "seed": "the adapter's seed is peft_args={'random_state': …}",
        "temperature": _SAMPLING,
        "warmup_ratio": _LEARNING_RATE,
        "warmup_steps": _LEARNING_RATE,
        "weight_decay": _per_step("weight_decay"),
    },
    "server_args": {
        "enable_auto_tool_choice": _TOOL_CALLS,
        "tool_call_parser": _TOOL_CALLS,
    },
}

# Where no option of a section has an effect, or its options are another program's.
_OF_SECTION: Mapping[str, str] = {
    "init_args": "the server loads the base model; for one on this machine see art.LocalBackend()",
    "engine_args": "no vLLM runs behind the endpoint; for the engine on this machine see "
    "art.LocalBackend()",
    "trainer_args": "each step is set by the fields of art.TrainConfig: backend.train(config=…)",
}


def find_remedy(section: str, option: str) -> str | None:
    """Find the advice for an option without an effect.

    Args:
        section: The path of the option's dict, such as ``"internal_config.trainer_args"``.
        option: The option's name, such as ``"learning_rate"``.

    Returns:
        A sentence without its full stop, or ``None`` where there is nothing to set instead.
    """
    _, _, section = section.partition(".")
    return _REMEDIES.get(section, {}).get(option) or _OF_SECTION.get(section)
