"""What the handlers of all families share. A family says how it differs, in a file of its own."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from megatron.core.models.gpt import GPTModel
from megatron.core.transformer import TransformerConfig
from torch import Tensor
from transformers import PretrainedConfig

from art.errors import AdapterFormatError, ConfigurationError
from art.megatron.model_support.layer_families import collect_layer_families
from art.megatron.model_support.lora_targets import collect_lora_targets
from art.megatron.model_support.protocol import NativeVllmLoraStatus
from art.megatron.model_support.spec import HandlerMeta, LayerFamilyInstance, LoraTarget
from art.megatron.model_support.vllm_lora import is_expert, read_adapters, write_adapters
from art.megatron.models.architecture import Architecture
from art.megatron.weights.mapping import WeightMapping


class FamilyHandler(ABC):
    """A family of decoders whose adapter vLLM loads under the names that training gives it.

    A subclass sets ``meta`` to the :class:`HandlerMeta` of its spec, so that the registry and the
    handler cannot say different things.
    """

    meta: ClassVar[HandlerMeta]

    @property
    def key(self) -> str:
        """The family's key."""
        return self.meta.key

    @property
    def is_moe(self) -> bool:
        """Whether the family routes tokens to experts."""
        return self.meta.is_moe

    @property
    def native_vllm_lora_status(self) -> NativeVllmLoraStatus:
        """How far vLLM serves the family's LoRA tensors as they are."""
        return self.meta.native_vllm_lora_status

    def check_config(self, config: TransformerConfig) -> None:
        """Refuse the config of another family.

        Args:
            config: The config to check.

        Raises:
            ConfigurationError: It is of another family.
        """
        self._require("multi_latent_attention", config.multi_latent_attention, False)
        if bool(config.num_moe_experts) != self.is_moe:
            raise ConfigurationError(
                f"a {self.key} model has {'routed' if self.is_moe else 'no'} experts, but this "
                f"config has num_moe_experts={config.num_moe_experts}"
            )

    @abstractmethod
    def read_config(self, config: PretrainedConfig | Mapping[str, Any]) -> Architecture:
        """Read a Hugging Face config, every field of it.

        Args:
            config: A config of transformers, or the content of a ``config.json``.

        Returns:
            The model that it describes.

        Raises:
            ConfigurationError: The config is of another family, or a field of it is unknown or
                has a value that is not supported. The message names the field.
        """

    @abstractmethod
    def weight_mapping(self, architecture: Architecture) -> WeightMapping:
        """Say which Hugging Face tensors the parameters of a model are made of.

        Args:
            architecture: What :meth:`read_config` read.

        Returns:
            The mapping of the whole model, whatever its ranks hold.
        """

    def collect_layer_families(self, config: TransformerConfig) -> list[LayerFamilyInstance]:
        """List the kinds of layers that a model of this config has.

        Args:
            config: The config of a model of this family.

        Returns:
            Each kind once, attention first, with the layers that hold it.

        Raises:
            ConfigurationError: The config is of another family.
        """
        self.check_config(config)
        return collect_layer_families(config)

    def collect_lora_targets(self, model: GPTModel) -> list[LoraTarget]:
        """List the linear modules of a model that can take an adapter.

        Args:
            model: A model of this family, or the part of one that a pipeline rank holds.

        Returns:
            The modules in the order of the layers.

        Raises:
            ConfigurationError: The model is of another family, or has layers without linear
                modules to adapt.
        """
        self.check_config(model.config)
        return collect_lora_targets(model)

    def row_order(
        self, module: str, rows: int, *, adapter_config: Mapping[str, Any]
    ) -> Tensor | None:
        """Say in which order Hugging Face keeps the rows of an adapter's B: as trained.

        Args:
            module: The module, by the name that training gives it.
            rows: How many rows its B has.
            adapter_config: The adapter's PEFT config, with the base model's
                ``num_attention_heads`` and ``num_key_value_heads``.

        Returns:
            int64 ``[rows]``: for each of Hugging Face's rows its number as trained. ``None``
            where the order is the same.

        Raises:
            AdapterFormatError: The rows are not those of such a module.
        """
        return None

    def to_vllm_lora_tensors(
        self, tensors: Mapping[str, Tensor], *, adapter_config: Mapping[str, Any]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Turn an adapter's tensors, as trained, into those that vLLM loads: the same ones.

        Args:
            tensors: A ``[R, in]`` and B ``[out, R]`` of each module, by PEFT's names.
            adapter_config: Its PEFT config; ``r`` is read.

        Returns:
            vLLM's tensors, and the config that goes with them.

        Raises:
            AdapterFormatError: A tensor has a name, rank or shape that does not fit.
        """
        tensors = self.from_vllm_lora_tensors(tensors, adapter_config=adapter_config)
        return tensors, dict(adapter_config)

    def from_vllm_lora_tensors(
        self, tensors: Mapping[str, Tensor], *, adapter_config: Mapping[str, Any]
    ) -> dict[str, Tensor]:
        """Turn vLLM's tensors back into those that training loads: the same ones.

        Args:
            tensors: A ``[R, in]`` and B ``[out, R]`` of each module, by PEFT's names.
            adapter_config: Its PEFT config; ``r`` is read.

        Returns:
            The adapter by the names that training gives it.

        Raises:
            AdapterFormatError: A tensor has a name, rank or shape that does not fit.
        """
        adapters = read_adapters(tensors, adapter_config)
        self._refuse_experts(adapters)
        return write_adapters(adapters)

    def _require(self, name: str, value: object, expected: object) -> None:
        if value != expected:
            raise ConfigurationError(
                f"a {self.key} model has {name}={expected!r}, but this config has {value!r}"
            )

    def _refuse_experts(self, modules: Mapping[str, object]) -> None:
        expert = next(filter(is_expert, modules), None)
        if expert is not None:
            raise AdapterFormatError(f"a {self.key} model has no routed experts, but got {expert}")
