"""What a handler must offer. Apart from ``spec``, since ``typing`` is dear in a cold process."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from .spec import HandlerMeta, LayerFamilyInstance, LoraTarget

if TYPE_CHECKING:
    from megatron.core.models.gpt import GPTModel
    from megatron.core.transformer import TransformerConfig
    from torch import Tensor
    from transformers import PretrainedConfig

    from art.megatron.models.architecture import Architecture
    from art.megatron.weights.mapping import WeightMapping

NativeVllmLoraStatus = Literal["disabled", "wip", "validated"]
RolloutWeightsMode = Literal["lora", "merged"]


@runtime_checkable
class ModelSupportHandler(Protocol):
    """The code of one model family. Its facts are in :class:`HandlerMeta`."""

    @property
    def meta(self) -> HandlerMeta:
        """What the registry knows about the family too."""

    @property
    def key(self) -> str:
        """The family's key, as in ``meta``."""

    @property
    def is_moe(self) -> bool:
        """Whether the family routes tokens to experts, as in ``meta``."""

    @property
    def native_vllm_lora_status(self) -> NativeVllmLoraStatus:
        """How far vLLM serves the family's LoRA tensors, as in ``meta``."""

    def read_config(self, config: "PretrainedConfig | Mapping[str, Any]") -> "Architecture":
        """Read a Hugging Face config, every field of it.

        Args:
            config: A config of transformers, or the content of a ``config.json``.

        Returns:
            The model that it describes.

        Raises:
            ConfigurationError: The config is of another family, or a field of it is unknown or
                has a value that is not supported. The message names the field.
        """

    def weight_mapping(self, architecture: "Architecture") -> "WeightMapping":
        """Say which Hugging Face tensors the parameters of a model are made of.

        Args:
            architecture: What :meth:`read_config` read.

        Returns:
            The mapping of the whole model, whatever its ranks hold.
        """

    def collect_layer_families(self, config: "TransformerConfig") -> list[LayerFamilyInstance]:
        """List the kinds of layers that a model of this config has.

        Args:
            config: The config of a model of this family.

        Returns:
            Each kind once, attention first, with the layers that hold it.

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
        """Say in which order Hugging Face keeps the rows of an adapter's B.

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

    def to_vllm_lora_tensors(
        self, tensors: "Mapping[str, Tensor]", *, adapter_config: Mapping[str, Any]
    ) -> "tuple[dict[str, Tensor], dict[str, Any]]":
        """Turn an adapter's tensors, as trained, into those that vLLM loads.

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
        """Turn vLLM's tensors back into those that training loads.

        Args:
            tensors: The adapter by the names that vLLM gives it.
            adapter_config: Its PEFT config.

        Returns:
            The adapter by the names that training gives it.

        Raises:
            AdapterFormatError: A tensor has a name, rank or shape that does not fit.
        """
