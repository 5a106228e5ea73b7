"""Hugging Face configs, read field by field: a field that is not read is refused, not ignored."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from art.errors import ConfigurationError

# Fields that do not change a forward pass over text: names, options of generation and of
# transformers' outputs and training, notes for other programs.
_WITHOUT_EFFECT = (
    "architectures",
    "auto_map",
    "chunk_size_feed_forward",
    "dtype",
    "id2label",
    "initializer_range",
    "is_llama_config",
    "label2id",
    "max_window_layers",
    "model_type",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "problem_type",
    "return_dict",
    "router_aux_loss_coef",
    "torch_dtype",
    "transformers.js_config",
    "transformers_version",
    "unsloth_fixed",
    "unsloth_version",
    "use_cache",
)
# Switches that transformers does not read for the families here, and that are off in what is
# published. On, they could mean another model, so they are refused.
_ONLY_OFF = ("is_encoder_decoder", "use_mrope")


class ConfigFields:
    """The fields of a config, each to be read once by its family.

    Args:
        fields: The fields by name.
        owner: The family in error messages, such as ``"qwen3_dense"``.
        path: The path of the fields in the config, such as ``"rope_parameters."``.
    """

    def __init__(self, fields: Mapping[str, Any], owner: str, path: str = "") -> None:
        self.model_type = str(fields.get("model_type", ""))
        self._fields = dict(fields)
        self._owner = owner
        self._path = path

    def __contains__(self, name: str) -> bool:
        return name in self._fields

    def value(self, name: str) -> Any:
        """Read a field of any type.

        Raises:
            ConfigurationError: The config does not have it.
        """
        if name not in self._fields:
            raise ConfigurationError(
                f"a {self._owner} model's config needs {self._path}{name}, which is missing"
            )
        return self._fields.pop(name)

    def integer(self, name: str) -> int:
        """Read a positive whole number."""
        value = self.value(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.unsupported(name, "it must be a positive whole number", value)
        return value

    def number(self, name: str, *, default: float | None = None) -> float:
        """Read a non-negative number."""
        value = self.value(name) if default is None else self._fields.pop(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e30:
            raise self.unsupported(name, "it must be a number that is not negative", value)
        return float(value)

    def optional_number(self, name: str) -> float | None:
        """Read a number that may be absent or null."""
        if self._fields.get(name) is None:
            self.without_effect(name)
            return None
        return self.number(name)

    def flag(self, name: str) -> bool:
        """Read True or False."""
        value = self.value(name)
        if not isinstance(value, bool):
            raise self.unsupported(name, "it must be true or false", value)
        return value

    def choice(self, name: str, allowed: Sequence[str]) -> str:
        """Read one of several strings."""
        value = self.value(name)
        if value not in allowed:
            raise self.unsupported(name, f"supported are {', '.join(allowed)}", value)
        return str(value)

    def layer_types(self, layers: int, allowed: Iterable[str]) -> list[str]:
        """Read the kind of attention of each layer."""
        value = self.value("layer_types")
        known = isinstance(value, list) and set(value) <= set(allowed)
        if not known or len(value) != layers:
            wanted = f"it must name {' or '.join(allowed)} for each of {layers} layers"
            raise self.unsupported("layer_types", wanted, value)
        return list(value)

    def require(self, name: str, expected: object, *, optional: bool = False) -> None:
        """Read a field that must have one value.

        Args:
            name: The field.
            expected: Its only supported value.
            optional: True if the field may be absent.
        """
        if optional and name not in self._fields:
            return
        value = self.value(name)
        if value != expected:
            raise self.unsupported(name, f"only {expected!r} is supported", value)

    def without_effect(self, *names: str) -> None:
        """Skip fields that cannot change a forward pass over text."""
        for name in names:
            self._fields.pop(name, None)

    def skip_common_fields(self) -> None:
        """Skip the fields of every transformers config that have no effect here."""
        self.without_effect(*_WITHOUT_EFFECT)
        # The tokenizer's ids, and transformers' own notes, such as _name_or_path.
        for name in list(self._fields):
            if name.startswith("_") or name.endswith("_token_id"):
                self.without_effect(name)
        for name in _ONLY_OFF:
            if self._fields.get(name) is None:
                self.without_effect(name)
            self.require(name, False, optional=True)

    def setdefault(self, name: str, value: object) -> object:
        """Get a field without reading it; set it if it is absent."""
        return self._fields.setdefault(name, value)

    def section(self, name: str) -> "ConfigFields":
        """Read a field that has fields of its own."""
        value = self.value(name)
        if not isinstance(value, Mapping):
            raise self.unsupported(name, "it must have fields of its own", value)
        return ConfigFields(value, self._owner, f"{self._path}{name}.")

    def text_section(self, allowed: Sequence[str]) -> "ConfigFields":
        """Read the text section of a vision-language config.

        Args:
            allowed: The values of its ``model_type`` that are supported.
        """
        text = self.section("text_config")
        if text.model_type not in allowed:
            raise text.unsupported("model_type", f"it must be {allowed[0]}", text.model_type)
        text.skip_common_fields()
        # Which copy of the field transformers uses depends on the class that it loads.
        tied = self.value("tie_word_embeddings")
        if text.setdefault("tie_word_embeddings", tied) != tied:
            raise self.unsupported("tie_word_embeddings", "text_config has another value", tied)
        self.without_effect("vision_config", "language_model_only")
        self.finish()
        return text

    def unsupported(self, name: str, reason: str, value: object = None) -> ConfigurationError:
        """Make the error for a field that cannot be used."""
        shown = "" if value is None else f"={value!r}"
        return ConfigurationError(
            f"the config's {self._path}{name}{shown} cannot be used by {self._owner}: {reason}"
        )

    def finish(self) -> None:
        """Refuse the fields that were not read.

        Raises:
            ConfigurationError: A field is left. The message names all of them.
        """
        if self._fields:
            names = ", ".join(f"{self._path}{name}" for name in sorted(self._fields))
            raise ConfigurationError(
                f"the config has fields that {self._owner} does not know: {names}. They could "
                "change what the model computes, so they are not ignored"
            )


def read_fields(
    config: PretrainedConfig | Mapping[str, Any], model_types: Sequence[str], owner: str
) -> ConfigFields:
    """Get the fields of a Hugging Face config, with transformers' defaults for absent ones.

    Args:
        config: A config of transformers, or the content of a ``config.json``.
        model_types: The values of ``model_type`` that the family reads.
        owner: The family's key.

    Returns:
        The fields that can have an effect.

    Raises:
        ConfigurationError: The config is of another family or of quantised weights, or
            transformers refuses it.
    """
    fields = config.to_dict() if isinstance(config, PretrainedConfig) else dict(config)
    model_type = str(fields.get("model_type"))
    if model_type not in model_types:
        raise ConfigurationError(
            f"a {owner} model has model_type {' or '.join(map(repr, model_types))}, but this "
            f"config has {model_type!r}"
        )
    try:
        fields = CONFIG_MAPPING[model_type].from_dict(fields).to_dict()
    except (KeyError, TypeError, ValueError, StrictDataclassError) as error:
        raise ConfigurationError(
            f"the config is not a valid {model_type} config: {error}"
        ) from error
    reader = ConfigFields(fields, owner)
    if fields.get("quantization_config"):
        reason = (
            "adapters are trained on unquantised weights. Load a copy of the model in "
            "bfloat16, or load it in transformers with dequantize=True in its quantization config "
            "(Mxfp4Config, FineGrainedFP8Config), and save it"
        )
        raise reader.unsupported("quantization_config", reason)
    reader.skip_common_fields()
    return reader
