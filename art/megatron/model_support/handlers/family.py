"""The base class of all handlers. A family overrides what differs, in a file of its own."""

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
from art.megatron.model_support.spec import (
    HandlerMeta,
    LayerFamilyInstance,
    LoraTarget,
    ModelSupportSpec,
    NativeVllmLoraStatus,
)
from art.megatron.model_support.vllm_lora import is_expert, read_adapters, write_adapters
from art.megatron.models.architecture import Architecture
from art.megatron.weights.mapping import WeightMapping


class FamilyHandler(ABC):
    """A family of decoders whose adapters vLLM loads under the names that training gives them.

    A subclass sets ``spec`` to the family's spec, so that the registry and the handler agree.
    """

    spec: ClassVar[ModelSupportSpec]

    @property
    def meta(self) -> HandlerMeta:
        """The facts that the registry also has."""
        return self.spec.handler

    @property
    def key(self) -> str:
        """The family's key."""
        return self.meta.key

    @property
    def is_moe(self) -> bool:
        """True if the family routes tokens to experts."""
        return self.meta.is_moe

    @property
    def native_vllm_lora_status(self) -> NativeVllmLoraStatus:
        """The state of vLLM's support for the family's LoRA tensors."""
        return self.meta.native_vllm_lora_status

    def check_config(self, config: TransformerConfig) -> None:
        """Refuse the megatron config of another family.

        Args:
            config: The config to check.

        Raises:
            ConfigurationError: It is the config of another family.
        """
        self._require("multi_latent_attention", config.multi_latent_attention, False)
        if bool(config.num_moe_experts) != self.is_moe:
            raise ConfigurationError(
                f"a {self.key} model has {'routed' if self.is_moe else 'no'} experts, but this "
                f"config has num_moe_experts={config.num_moe_experts}"
            )

    @abstractmethod
    def read_config(self, config: PretrainedConfig | Mapping[str, Any]) -> Architecture:
        """Read every field of a Hugging Face config.

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
        """Map a model's parameters to the Hugging Face tensors that they are made of.

        Args:
            architecture: The result of :meth:`read_config`.

        Returns:
            The mapping of the whole model; it does not depend on the ranks.
        """

    def collect_layer_families(self, config: TransformerConfig) -> list[LayerFamilyInstance]:
        """List the kinds of layers that a model of this config has.

        Args:
            config: The config of a model of this family.

        Returns:
            Each kind once, attention first, with the layers that have it.

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
        """Give the order in which Hugging Face keeps the rows of an adapter's B: as trained.

        Args:
            module: The module, by the name that training gives it.
            rows: Number of rows of its B.
            adapter_config: The adapter's PEFT config, with the base model's
                ``num_attention_heads`` and ``num_key_value_heads``.

        Returns:
            int64 ``[rows]``: for each of Hugging Face's rows, the row as trained. ``None`` if the
            order is the same.

        Raises:
            AdapterFormatError: Such a module cannot have that number of rows.
        """
        return None

    def to_vllm_lora_tensors(
        self, tensors: Mapping[str, Tensor], *, adapter_config: Mapping[str, Any]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Convert an adapter's tensors, as trained, to those that vLLM loads: the same ones.

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
        """Convert vLLM's tensors back to those that training loads: the same ones.

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
