"""Checks of the options by ART's names: one that has no effect is refused by name."""

from collections.abc import Mapping
from typing import Any

from art.dev.model import (
    EngineArgs,
    InitArgs,
    InternalModelConfig,
    PeftArgs,
    TinkerArgs,
    TinkerTrainingClientArgs,
    TrainerArgs,
)
from art.dev.openai_server import OpenAIServerConfig, ServerArgs
from art.dev.remedies import find_remedy
from art.errors import ConfigurationError

# The options of each part, and below them the parts within it.
_SECTIONS: Mapping[str, type] = {
    "internal_config": InternalModelConfig,
    "internal_config.init_args": InitArgs,
    "internal_config.engine_args": EngineArgs,
    "internal_config.peft_args": PeftArgs,
    "internal_config.tinker_args": TinkerArgs,
    "internal_config.tinker_args.training_client_args": TinkerTrainingClientArgs,
    "internal_config.trainer_args": TrainerArgs,
    "endpoint_config": OpenAIServerConfig,
    "endpoint_config.engine_args": EngineArgs,
    "endpoint_config.server_args": ServerArgs,
}


def validate_model_config(config: InternalModelConfig) -> None:
    """Check the names of the options of a model's config, and the values that need no model.

    Args:
        config: The user's values.

    Raises:
        art.errors.ConfigurationError: An option has no effect, or a value cannot be used.
    """
    _check_names("internal_config", config)
    mode = config.get("rollout_weights_mode", "lora")
    if mode != "lora":
        raise ConfigurationError(
            f"internal_config.rollout_weights_mode is {mode!r}; it can only be 'lora': adapters "
            "are served beside the base model"
        )


def validate_server_config(config: OpenAIServerConfig) -> None:
    """Check the names of the options of an endpoint's config.

    Args:
        config: The user's values.

    Raises:
        art.errors.ConfigurationError: An option has no effect.
    """
    _check_names("endpoint_config", config)


def is_dedicated_mode(config: Mapping[str, Any]) -> bool:
    """Say whether a config asks for GPUs of their own for training and for inference.

    No engine of art takes such a config: see :func:`validate_dedicated_config`.
    """
    return "trainer_gpu_ids" in config and "inference_gpu_ids" in config


def validate_dedicated_config(config: InternalModelConfig) -> None:
    """Check a model's config: ART's name of :func:`validate_model_config`.

    Raises:
        art.errors.ConfigurationError: An option has no effect (GPU ids among them), or a value
            cannot be used.
    """
    validate_model_config(config)


def _check_names(section: str, options: object) -> None:
    if not isinstance(options, Mapping):
        raise ConfigurationError(
            f"{section} must be a dict of options, not {type(options).__name__}"
        )
    known = _SECTIONS[section].__annotations__
    for name, value in options.items():
        path = f"{section}.{name}"
        if name not in known:
            raise ConfigurationError(_refusal(section, str(name), list(known)))
        if path in _SECTIONS and value is not None:
            _check_names(path, value)


def _refusal(section: str, name: str, known: list[str]) -> str:
    from difflib import get_close_matches

    text = f"{section}.{name} has no effect in art"
    if remedy := find_remedy(section, name):
        return f"{text}: {remedy}"
    if near := get_close_matches(name, known, n=1):
        return f"{text}. Did you mean {near[0]!r}?"
    if known:
        return f"{text}; {section} takes {', '.join(known)}"
    return f"{text}; leave it out"
