"""The arguments of a Tinker training client, from a model's config."""

from art.dev.model import InternalModelConfig, TinkerTrainingClientArgs
from art.errors import ConfigurationError


def training_client_args(config: InternalModelConfig) -> TinkerTrainingClientArgs:
    """Read the arguments for ``ServiceClient.create_lora_training_client``.

    Args:
        config: From :func:`art.dev.get_model_config.get_model_config`.

    Returns:
        ``rank``, ``seed``, ``train_attn``, ``train_mlp``, ``train_unembed``, and
        ``user_metadata`` if given.

    Raises:
        ConfigurationError: The config is a user's own, without the defaults.
    """
    tinker_args = config.get("tinker_args")
    if tinker_args is None or "training_client_args" not in tinker_args:
        raise ConfigurationError(
            "the model's config has no tinker_args.training_client_args: complete it by "
            "art.dev.get_model_config.get_model_config"
        )
    return tinker_args["training_client_args"]
