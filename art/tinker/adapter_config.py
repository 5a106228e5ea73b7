"""A model's config as the arguments of a Tinker training client."""

from typing import TYPE_CHECKING

from art.errors import ConfigurationError

if TYPE_CHECKING:
    from art.dev.model import InternalModelConfig, TinkerTrainingClientArgs

# What the wire carries of `peft_args`; ART's default for a Tinker model leaves the output layer.
_CARRIED = {"r", "random_state"}
_DEFAULT_TRAIN_UNEMBED = False


def training_client_args(
    base_model: str, config: "InternalModelConfig"
) -> "TinkerTrainingClientArgs":
    """Arguments for ``ServiceClient.create_lora_training_client``.

    Args:
        base_model: The base model's name.
        config: From ``get_model_config``. ``tinker_args["training_client_args"]`` goes before
            ``peft_args``, of which ``r`` is the rank and ``random_state`` the seed.

    Returns:
        ``rank``, ``seed``, ``train_attn``, ``train_mlp``, ``train_unembed``, and
        ``user_metadata`` if given.

    Raises:
        ConfigurationError: ``peft_args`` asks for what the Tinker wire cannot carry.
    """
    from art.dev.get_model_config import get_model_config

    peft_args = config.get("peft_args", {})
    defaults = get_model_config(base_model, "", None)["peft_args"]
    differing = [
        name
        for name, value in peft_args.items()
        if name not in _CARRIED and value != defaults.get(name)
    ]
    if differing:
        raise ConfigurationError(
            f"a Tinker server takes no {', '.join(differing)} in peft_args, only r and "
            "random_state; choose the modules with train_attn, train_mlp and train_unembed in "
            'tinker_args["training_client_args"]'
        )
    return {
        "rank": peft_args.get("r", defaults["r"]),
        "seed": peft_args.get("random_state", defaults["random_state"]),
        "train_attn": True,
        "train_mlp": True,
        "train_unembed": _DEFAULT_TRAIN_UNEMBED,
        **(config.get("tinker_args") or {}).get("training_client_args", {}),
    }
