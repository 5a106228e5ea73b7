"""Qwen3.5 and later with experts: the attention of dense Qwen3.5, routed and shared experts.

Training adapts an expert's fused gate and up as one linear module, ``gate_up_proj``. vLLM loads
the experts fused.
"""

from collections.abc import Mapping
from typing import Any

from megatron.core.models.gpt import GPTModel
from megatron.core.transformer import TransformerConfig
from torch import Tensor

from art.errors import ConfigurationError
from art.megatron.model_support.families import QWEN3_5_MOE_SPEC
from art.megatron.model_support.lora_targets import collect_lora_targets
from art.megatron.model_support.spec import LoraTarget
from art.megatron.model_support.vllm_lora import (
    fuse_trained_experts,
    rank_of,
    read_adapters,
    target_modules_of,
    unfuse_served_experts,
    write_adapters,
)
from art.megatron.models.architecture import Architecture
from art.megatron.models.decoder_config import read_experts
from art.megatron.models.hf_config import ConfigFields
from art.megatron.weights.experts import routed_experts, shared_expert
from art.megatron.weights.mapping import Parameter

from .qwen3_5_dense import Qwen35DenseHandler


class Qwen35MoeHandler(Qwen35DenseHandler):
    """Qwen3.5, mixture of experts."""

    spec = QWEN3_5_MOE_SPEC

    def check_config(self, config: TransformerConfig) -> None:
        """Refuse the config of any model but Qwen3.5 with experts. See :class:`FamilyHandler`."""
        super().check_config(config)
        if not config.moe_shared_expert_intermediate_size:
            raise ConfigurationError(
                f"a {self.key} model has a shared expert, but this config has "
                "moe_shared_expert_intermediate_size="
                f"{config.moe_shared_expert_intermediate_size}"
            )

    def read_mlp(self, fields: ConfigFields) -> dict[str, Any]:
        """Read the fields about experts. See :class:`Qwen35DenseHandler`."""
        # Every layer routes, so the size of a dense MLP has no effect.
        fields.require("norm_topk_prob", True, optional=True)
        fields.without_effect("intermediate_size")
        return read_experts(fields, normalized=True) | {
            "moe_layer_freq": 1,
            "moe_shared_expert_intermediate_size": fields.integer(
                "shared_expert_intermediate_size"
            ),
            "moe_shared_expert_gate": True,
        }

    def map_mlp(self, architecture: Architecture) -> tuple[Parameter, ...]:
        """Map the weights of experts. See :class:`Qwen35DenseHandler`."""
        return (*routed_experts(architecture, stacked=True), *shared_expert(architecture))

    def collect_lora_targets(self, model: GPTModel) -> list[LoraTarget]:
        """List the linear modules that can take an adapter. See :class:`FamilyHandler`."""
        self.check_config(model.config)
        return collect_lora_targets(model, expert_fc1=("gate_up_proj",))

    def to_vllm_lora_tensors(
        self, tensors: Mapping[str, Tensor], *, adapter_config: Mapping[str, Any]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Convert an adapter's tensors, as trained, to those that vLLM loads.

        Args:
            tensors: The adapter, with ``gate_up_proj`` and ``down_proj`` of every expert.
            adapter_config: As for :class:`Qwen35DenseHandler`.

        Returns:
            vLLM's tensors, with fused experts, and the config with their ``target_modules``.

        Raises:
            AdapterFormatError: A tensor has a name, rank or shape that does not fit.
        """
        adapters = fuse_trained_experts(read_adapters(tensors, adapter_config))
        config = {**adapter_config, "target_modules": target_modules_of(adapters)}
        return write_adapters(self.rename_to_vllm(adapters, adapter_config)), config

    def from_vllm_lora_tensors(
        self, tensors: Mapping[str, Tensor], *, adapter_config: Mapping[str, Any]
    ) -> dict[str, Tensor]:
        """Convert vLLM's tensors back to those that training loads.

        Args:
            tensors: The adapter, experts fused.
            adapter_config: As for :class:`Qwen35DenseHandler`.

        Returns:
            The adapter, with ``gate_up_proj`` and ``down_proj`` of every expert.

        Raises:
            AdapterFormatError: A tensor has a name, rank or shape that does not fit.
        """
        served = self.rename_from_vllm(read_adapters(tensors, adapter_config), adapter_config)
        rank = rank_of(adapter_config)
        return write_adapters(unfuse_served_experts(served, rank, family=self.key))


QWEN3_5_MOE_HANDLER = Qwen35MoeHandler()
