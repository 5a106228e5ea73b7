"""The protocol of a family's handler: the code behind the data in :mod:`.spec`.

In a module of its own, since importing ``typing`` is slow in a cold process.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from .literals import NativeVllmLoraStatus
from .spec import HandlerMeta, LayerFamilyInstance, LoraTarget

if TYPE_CHECKING:
    from megatron.core.models.gpt import GPTModel
    from megatron.core.transformer import TransformerConfig
    from torch import Tensor
    from transformers import PretrainedConfig

    from art.megatron.models.architecture import Architecture
    from art.megatron.weights.mapping import WeightMapping


@runtime_checkable
class ModelSupportHandler(Protocol):
    """The code of one model family. Its facts are in :class:`HandlerMeta`."""

    @property
    def meta(self) -> HandlerMeta:
        """The facts that the registry also has."""

    @property
    def key(self) -> str:
        """The family's key, as in ``meta``."""

    @property
    def is_moe(self) -> bool:
        """True if the family routes tokens to experts, as in ``meta``."""

    @property
    def native_vllm_lora_status(self) -> NativeVllmLoraStatus:
        """The state of vLLM's support for the family's LoRA tensors, as in ``meta``."""

    def read_config(self, config: "PretrainedConfig | Mapping[str, Any]") -> "Architecture":
        """Read every field of a Hugging Face config.

        Args:
            config: A config of transformers, or the content of a ``config.json``.

        Returns:
            The model that it describes.

        Raises:
            ConfigurationError: The config is of another family, or a field of it is unknown or
                has a value that is not supported. The message names the field.
        """

    def weight_mapping(self, architecture: "Architecture") -> "WeightMapping":
        """Map a model's parameters to the Hugging Face tensors that they are made of.

        Args:
            architecture: The result of :meth:`read_config`.

        Returns:
            The mapping of the whole model; it does not depend on the ranks.
        """

    def collect_layer_families(self, config: "TransformerConfig") -> list[LayerFamilyInstance]:
        """List the kinds of layers that a model of this config has.

        Args:
            config: The config of a model of this family.

        Returns:
            Each kind once, attention first, with the layers that have it.

        Raises:
            ConfigurationError: The config is of another family.
        """

    def collect_lora_targets(self, model: "GPTModel") -> list[LoraTarget]:
        """List the linear modules of a model that can take an adapter.

        Args:
            model: A model of this family, or the part of one that a pipeline rank holds.

        Returns:
            The modules in the order of the layers.

        Raises:
            ConfigurationError: The model is of another family, or has layers without linear
                modules to adapt.
        """

    def row_order(
        self, module: str, rows: int, *, adapter_config: Mapping[str, Any]
    ) -> "Tensor | None":
        """Give the order in which Hugging Face keeps the rows of an adapter's B.

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

    def to_vllm_lora_tensors(
        self, tensors: "Mapping[str, Tensor]", *, adapter_config: Mapping[str, Any]
    ) -> "tuple[dict[str, Tensor], dict[str, Any]]":
        """Convert an adapter's tensors, as trained, to those that vLLM loads.

        Args:
            tensors: The adapter by the names that training gives it.
            adapter_config: Its PEFT config; ``r`` and ``target_modules`` are read.

        Returns:
            vLLM's tensors, and the config that goes with them.

        Raises:
            AdapterFormatError: A tensor has a name, rank or shape that does not fit.
        """

    def from_vllm_lora_tensors(
        self, tensors: "Mapping[str, Tensor]", *, adapter_config: Mapping[str, Any]
    ) -> "dict[str, Tensor]":
        """Convert vLLM's tensors back to those that training loads.

        Args:
            tensors: The adapter by the names that vLLM gives it.
            adapter_config: Its PEFT config.

        Returns:
            The adapter by the names that training gives it.

        Raises:
            AdapterFormatError: A tensor has a name, rank or shape that does not fit.
        """
