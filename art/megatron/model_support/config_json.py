"""The ``model_type`` of a model that is on this machine, read from its ``config.json``.

Found without the network and without ``huggingface_hub``, whose import costs a thousand times
what reading the file does.
"""

import os

from art.errors import CheckpointError

_NAME = "config.json"


def is_folder(base_model: str) -> bool:
    """Test whether a model is given as a folder that exists."""
    return os.path.isdir(os.path.expanduser(base_model))


def find_config(base_model: str) -> str | None:
    """Find the ``config.json`` of a model on this machine.

    Args:
        base_model: A folder, or a name on the Hugging Face hub. A folder takes precedence, as in
            transformers.

    Returns:
        Its path. ``None`` if there is no such folder and the hub's cache does not have the model.

    Raises:
        CheckpointError: The folder has no ``config.json``.
    """
    folder = os.path.expanduser(base_model)
    if not os.path.isdir(folder):
        return _find_in_hub_cache(base_model)
    path = os.path.join(folder, _NAME)
    if not os.path.isfile(path):
        raise CheckpointError(
            f"{folder} is a folder without {_NAME}, so its model family cannot be told. Give a "
            "folder that save_pretrained wrote, or a model's name on the Hugging Face hub"
        )
    return path


def read_model_type(path: str) -> str:
    """Read the ``model_type`` of a ``config.json``.

    Args:
        path: The file.

    Returns:
        Its ``model_type``, such as ``"qwen3_moe"``; of a vision-language model that of the whole.

    Raises:
        CheckpointError: The file cannot be read, is not a JSON object, or has no ``model_type``.
    """
    import json

    try:
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is damaged: it is not JSON ({error}). Download or save the model again"
        ) from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} holds a {type(config).__name__}; it must be a JSON object")
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        raise CheckpointError(
            f"{path} has model_type {model_type!r}; it must name the model's architecture, such as "
            '"qwen3". Save the model again with save_pretrained, which writes it'
        )
    return model_type


def _find_in_hub_cache(name: str) -> str | None:
    repository = os.path.join(_hub_cache(), "models--" + name.replace("/", "--"))
    snapshots = os.path.join(repository, "snapshots")
    if not name or not os.path.isdir(snapshots):
        return None
    commits = sorted(os.listdir(snapshots))
    # The branch that is loaded where no revision is named; then any, of one architecture all.
    main = os.path.join(repository, "refs", "main")
    if os.path.isfile(main):
        with open(main, encoding="utf-8") as file:
            commits.insert(0, file.read().strip())
    paths = (os.path.join(snapshots, commit, _NAME) for commit in commits)
    return next((path for path in paths if os.path.isfile(path)), None)


def _hub_cache() -> str:
    """The folder of the hub's cache, by the environment variables that huggingface_hub reads."""
    cache = os.environ.get("XDG_CACHE_HOME", os.path.join("~", ".cache"))
    home = os.environ.get("HF_HOME", os.path.join(cache, "huggingface"))
    hub = os.environ.get("HUGGINGFACE_HUB_CACHE", os.path.join(home, "hub"))
    return os.path.expandvars(os.path.expanduser(os.environ.get("HF_HUB_CACHE", hub)))
