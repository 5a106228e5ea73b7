"""The full config of a trainable model, completed from a user's part of it."""

import copy
import os
from typing import TypeVar

from art.dev.model import InternalModelConfig, TinkerTrainingClientArgs
from art.dev.validate import validate_model_config
from art.errors import ConfigurationError
from art.formats.lora import LORA_ALPHA
from art.megatron.model_support.registry import default_target_modules_for_model
from art.runs.paths import checkpoint_dir, checkpoint_steps

T = TypeVar("T")

_DEFAULT_RANK = 8
_DEFAULT_SEED = 3407


def get_model_config(
    base_model: str, output_dir: str | os.PathLike[str], config: InternalModelConfig | None
) -> InternalModelConfig:
    """Fill in a model's config: the result says what runs.

    A result can be given as ``config`` again, and gives the same.

    Args:
        base_model: The base model's name; says which modules get an adapter.
        output_dir: The model's folder. Its last checkpoint, if there is one, becomes
            ``init_args["model_name"]``: training goes on from it.
        config: The user's values, which override the defaults; ``None`` is none.

    Returns:
        A new config; ``config`` is not changed. ``peft_args["target_modules"]`` is absent where
        ``train_attn``, ``train_mlp`` or ``train_unembed`` is not its default: the server then
        chooses the modules.

    Raises:
        art.errors.ConfigurationError: An option has no effect, or a value is not what runs.
        art.errors.UnsupportedModelArchitectureError: ``allow_unvalidated_arch`` is false, and the
            model-support registry does not list the base model.
    """
    # A copy, so that changing the result cannot change the user's lists.
    config = {} if config is None else copy.deepcopy(config)
    validate_model_config(config)
    allow_unvalidated_arch = config.get("allow_unvalidated_arch", True)
    registered_modules = default_target_modules_for_model(
        base_model, allow_unvalidated_arch=allow_unvalidated_arch
    )
    adapter = _training_client_args(config)
    result: InternalModelConfig = {
        "init_args": {"model_name": _loaded_weights(base_model, output_dir, config)},
        "peft_args": {
            "r": adapter["rank"],
            "lora_alpha": LORA_ALPHA,
            "random_state": adapter["seed"],
        },
        "tinker_args": {"training_client_args": adapter},
        "rollout_weights_mode": "lora",
        "allow_unvalidated_arch": allow_unvalidated_arch,
    }
    of_every_part = adapter["train_attn"] and adapter["train_mlp"] and not adapter["train_unembed"]
    if of_every_part:
        result["peft_args"]["target_modules"] = registered_modules
    _check_adapter(config, registered_modules if of_every_part else None)
    if "chat_template" in config:
        result["chat_template"] = config["chat_template"]
    if "chat_template_kwargs" in config:
        result["chat_template_kwargs"] = config["chat_template_kwargs"]
    return result


def _training_client_args(config: InternalModelConfig) -> TinkerTrainingClientArgs:
    peft = config.get("peft_args", {})
    given = (config.get("tinker_args") or {}).get("training_client_args", {})
    rank = _same("rank", peft.get("r"), given.get("rank"), _DEFAULT_RANK)
    if type(rank) is not int or rank < 1:
        raise ConfigurationError(f"the rank of a LoRA adapter is an integer from 1, not {rank!r}")
    seed = _DEFAULT_SEED if not {"random_state", "seed"} & {*peft, *given} else None
    return {
        **given,
        "rank": rank,
        "seed": _same("seed", peft.get("random_state"), given.get("seed"), seed),
        "train_attn": given.get("train_attn", True),
        "train_mlp": given.get("train_mlp", True),
        "train_unembed": given.get("train_unembed", False),
    }


def _same(name: str, in_peft_args: T | None, in_tinker_args: T | None, default: T) -> T:
    """Take a number of the adapter that has two names: ART's options for two backends."""
    if in_peft_args is None or in_tinker_args is None or in_peft_args == in_tinker_args:
        given = in_peft_args if in_tinker_args is None else in_tinker_args
        return default if given is None else given
    raise ConfigurationError(
        f"the {name} of the adapter is {in_peft_args!r} in peft_args and {in_tinker_args!r} in "
        "tinker_args; give it once, or the same twice"
    )


def _loaded_weights(
    base_model: str, output_dir: str | os.PathLike[str], config: InternalModelConfig
) -> str:
    folders = [str(checkpoint_dir(output_dir, step)) for step in checkpoint_steps(output_dir)]
    loaded = folders[-1] if folders else base_model
    given = config.get("init_args", {}).get("model_name", base_model)
    # An earlier checkpoint is there in a config that was completed before the last step.
    if given not in (base_model, *folders):
        raise ConfigurationError(
            f"init_args.model_name is {given!r}, but training starts from {loaded!r}; name the "
            "weights by base_model"
        )
    return loaded


def _check_adapter(config: InternalModelConfig, target_modules: list[str] | None) -> None:
    """Refuse numbers and modules of the adapter that are not those that run."""
    peft = config.get("peft_args", {})
    alpha = peft.get("lora_alpha", LORA_ALPHA)
    if alpha != LORA_ALPHA:
        raise ConfigurationError(
            f"peft_args.lora_alpha is {alpha!r}, but every adapter has {LORA_ALPHA:g}: the Tinker "
            "API does not carry it. Leave it out"
        )
    modules = peft.get("target_modules")
    if modules is not None and (target_modules is None or {*modules} != {*target_modules}):
        chosen = "chosen by the server" if target_modules is None else ", ".join(target_modules)
        raise ConfigurationError(
            f"peft_args.target_modules is {modules}, but the adapted modules are {chosen}. Leave "
            'it out, and choose among them by tinker_args={"training_client_args": '
            '{"train_attn": …, "train_mlp": …, "train_unembed": …}}'
        )
