"""Qwen3 with experts: the attention of dense Qwen3, routed experts, no shared ones.

Training and vLLM both keep the gate, up and down of each expert apart. An adapter that PEFT trained
on fused experts is split for vLLM.
"""

from collections.abc import Mapping
from typing import Any

from megatron.core.transformer import TransformerConfig
from torch import Tensor
from transformers import PretrainedConfig

from art.errors import AdapterFormatError
from art.megatron.model_support.families import QWEN3_MOE_SPEC
from art.megatron.model_support.vllm_lora import (
    is_fused,
    rank_of,
    read_adapters,
    split_gate_up,
    stack_experts,
    target_modules_of,
    unfuse_experts,
    unstack_experts,
    write_adapters,
)
from art.megatron.models.architecture import Architecture
from art.megatron.models.decoder_config import (
    finish,
    read_attention,
    read_experts,
    refuse_sliding_window,
)
from art.megatron.models.hf_config import ConfigFields, read_fields
from art.megatron.weights.decoder import attention, decoder_mapping, dense_mlp
from art.megatron.weights.experts import routed_experts
from art.megatron.weights.mapping import WeightMapping

from .family import FamilyHandler

_PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


class Qwen3MoeHandler(FamilyHandler):
    """Qwen3, mixture of experts."""

    spec = QWEN3_MOE_SPEC

    def check_config(self, config: TransformerConfig) -> None:
        """Refuse the config of any model but Qwen3 with experts. See :class:`FamilyHandler`."""
        super().check_config(config)
        self._require("normalization", config.normalization, "RMSNorm")
        self._require("gated_linear_unit", config.gated_linear_unit, True)
        self._require("qk_layernorm", config.qk_layernorm, True)
        self._require("experimental_attention_variant", config.experimental_attention_variant, None)
        self._require(
            "moe_shared_expert_intermediate_size", config.moe_shared_expert_intermediate_size, None
        )

    def read_config(self, config: PretrainedConfig | Mapping[str, Any]) -> Architecture:
        """Read a Hugging Face config. See :class:`FamilyHandler`."""
        fields = read_fields(config, self.spec.model_types, self.key)
        transformer = read_attention(fields)
        layers = transformer["num_layers"]
        transformer |= read_experts(fields, normalized=fields.flag("norm_topk_prob")) | {
            "ffn_hidden_size": fields.integer("intermediate_size"),
            "qk_layernorm": True,
            "moe_layer_freq": _routed_layers(fields, layers),
        }
        refuse_sliding_window(fields, layers)
        fields.require("attention_bias", False)
        # Qwen3-Coder repeats these in the fields of Qwen2.
        fields.require("qkv_bias", False, optional=True)
        fields.require("use_qk_norm", True, optional=True)
        fields.require("shared_expert_intermediate_size", 0, optional=True)
        return finish(fields, transformer)

    def weight_mapping(self, architecture: Architecture) -> WeightMapping:
        """Map a model's weights. See :class:`FamilyHandler`."""
        before = attention(architecture)
        kinds = (dense_mlp(architecture), routed_experts(architecture, stacked=False))
        return decoder_mapping(
            architecture,
            [(*before, *kinds[routed]) for routed in architecture.transformer["moe_layer_freq"]],
        )

    def to_vllm_lora_tensors(
        self, tensors: Mapping[str, Tensor], *, adapter_config: Mapping[str, Any]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Convert an adapter's tensors to those that vLLM loads, which keeps experts apart.

        Args:
            tensors: The adapter, its experts one by one or fused.
            adapter_config: Its PEFT config; ``r`` is read.

        Returns:
            vLLM's tensors, and the config with the ``target_modules`` that they have.

        Raises:
            AdapterFormatError: A tensor has a name, rank or shape that does not fit, or a layer
                has both fused and single experts.
        """
        adapters = read_adapters(tensors, adapter_config)
        for experts, fused in unfuse_experts(adapters, rank_of(adapter_config)).items():
            del adapters[experts], adapters[f"{experts}.base_layer"]
            single = unstack_experts(experts, split_gate_up(fused))
            if adapters.keys() & single.keys():
                raise AdapterFormatError(f"{experts} has both fused and single experts")
            adapters |= single
        stack_experts(adapters, _PROJECTIONS)  # raises unless every expert is complete
        config = {**adapter_config, "target_modules": target_modules_of(adapters)}
        return write_adapters(adapters), config

    def from_vllm_lora_tensors(
        self, tensors: Mapping[str, Tensor], *, adapter_config: Mapping[str, Any]
    ) -> dict[str, Tensor]:
        """Convert vLLM's tensors back to those that training loads: the same ones.

        Args:
            tensors: The adapter, its experts one by one.
            adapter_config: Its PEFT config; ``r`` is read.

        Returns:
            The adapter by the names that training gives it.

        Raises:
            AdapterFormatError: A tensor has a name, rank or shape that does not fit.
        """
        adapters = read_adapters(tensors, adapter_config)
        fused = next(filter(is_fused, adapters), None)
        if fused is not None:
            raise AdapterFormatError(
                f"vLLM keeps the experts of {self.key} one by one, but {fused} is fused; "
                "to_vllm_lora_tensors splits them"
            )
        stack_experts(adapters, _PROJECTIONS)  # raises unless every expert is complete
        return write_adapters(adapters)


def _routed_layers(fields: ConfigFields, layers: int) -> list[int]:
    """Mark each layer as routed (1) or dense (0), as ``Qwen3MoeDecoderLayer`` does."""
    step, dense = fields.integer("decoder_sparse_step"), fields.value("mlp_only_layers")
    if not isinstance(dense, list) or not set(dense) <= set(range(layers)):
        raise fields.unsupported("mlp_only_layers", f"it must list some of {layers} layers", dense)
    routed = [int(layer not in dense and (layer + 1) % step == 0) for layer in range(layers)]
    if not any(routed):
        raise fields.unsupported("decoder_sparse_step", "no layer would have experts", step)
    return routed


QWEN3_MOE_HANDLER = Qwen3MoeHandler()
