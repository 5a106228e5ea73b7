"""Checks of a model's config."""

from art.dev.model import InternalModelConfig
from art.errors import ConfigurationError


def is_dedicated_mode(config: InternalModelConfig) -> bool:
    """Whether training and inference run on GPUs of their own."""
    return "trainer_gpu_ids" in config and "inference_gpu_ids" in config


def validate_dedicated_config(config: InternalModelConfig) -> None:
    """Check what a config says of GPUs and of the weights that are served.

    Args:
        config: A model's config. Without GPU ids (shared mode) only the mode is checked.

    Raises:
        art.errors.ConfigurationError: The config contradicts itself.
    """
    mode = config.get("rollout_weights_mode", "lora")
    if mode not in ("lora", "merged"):
        raise ConfigurationError(f"rollout_weights_mode must be 'lora' or 'merged', not {mode!r}")
    if ("trainer_gpu_ids" in config) != ("inference_gpu_ids" in config):
        raise ConfigurationError(
            "trainer_gpu_ids and inference_gpu_ids must both be set or both unset"
        )
    if "fast_inference" in config.get("init_args", {}):
        raise ConfigurationError(
            "init_args has fast_inference, which is no longer supported: inference always runs in "
            "an engine of its own. Leave it out."
        )
    if is_dedicated_mode(config):
        _validate_gpu_ids(config)
    elif mode == "merged":
        raise ConfigurationError(
            "rollout_weights_mode='merged' needs dedicated mode: set both trainer_gpu_ids and "
            "inference_gpu_ids"
        )


def _validate_gpu_ids(config: InternalModelConfig) -> None:
    trainer, inference = config["trainer_gpu_ids"], config["inference_gpu_ids"]
    if not trainer or not inference:
        raise ConfigurationError("trainer_gpu_ids and inference_gpu_ids must not be empty")
    if shared := sorted(set(trainer) & set(inference)):
        raise ConfigurationError(
            f"trainer_gpu_ids and inference_gpu_ids must not overlap; both have {shared}"
        )
    if len(inference) > 1:
        raise ConfigurationError(f"inference_gpu_ids must be exactly one GPU, not {inference}")
    if trainer != list(range(len(trainer))):
        raise ConfigurationError(
            f"trainer_gpu_ids must count up from 0, as in [0] or [0, 1], not {trainer}"
        )
    if config.get("engine_args", {}).get("enable_sleep_mode"):
        raise ConfigurationError(
            "engine_args has enable_sleep_mode, which is for shared mode; in dedicated mode the "
            "engine never sleeps. Leave it out."
        )
