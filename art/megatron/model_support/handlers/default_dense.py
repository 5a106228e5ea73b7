"""Dense decoders that have no family of their own.

Attention is standard, multi-head or grouped-query; norms and biases are as the config says.
"""

from collections.abc import Mapping
from typing import Any

from megatron.core.transformer import TransformerConfig
from transformers import PretrainedConfig

from art.megatron.model_support.families import DEFAULT_DENSE_SPEC
from art.megatron.models.architecture import Architecture
from art.megatron.models.decoder_config import finish, read_attention, refuse_sliding_window
from art.megatron.models.hf_config import read_fields
from art.megatron.weights.decoder import attention, decoder_mapping, dense_mlp
from art.megatron.weights.mapping import WeightMapping

from .family import FamilyHandler


class DefaultDenseHandler(FamilyHandler):
    """A dense decoder with standard attention."""

    # Its model types are decoders with Llama's tensor names, which differ from Llama only in
    # biases of queries, keys and values (Qwen2) and norms of queries and keys (Qwen3).
    spec = DEFAULT_DENSE_SPEC

    def check_config(self, config: TransformerConfig) -> None:
        """Refuse a config with experts or another attention. See :class:`FamilyHandler`."""
        super().check_config(config)
        self._require("experimental_attention_variant", config.experimental_attention_variant, None)

    def read_config(self, config: PretrainedConfig | Mapping[str, Any]) -> Architecture:
        """Read a Hugging Face config. See :class:`FamilyHandler`."""
        fields = read_fields(config, self.spec.model_types, self.key)
        transformer = read_attention(fields) | {
            "ffn_hidden_size": fields.integer("intermediate_size"),
            "add_qkv_bias": fields.model_type == "qwen2",
            "qk_layernorm": fields.model_type == "qwen3",
        }
        refuse_sliding_window(fields, transformer["num_layers"])
        fields.require("attention_bias", False, optional=True)
        fields.require("mlp_bias", False, optional=True)
        # Llama's way of splitting its matrix products, without effect at 1.
        fields.require("pretraining_tp", 1, optional=True)
        # A field of SmolLM2: rotate neighbouring dimensions instead of the two halves.
        fields.require("rope_interleaved", False, optional=True)
        return finish(fields, transformer)

    def weight_mapping(self, architecture: Architecture) -> WeightMapping:
        """Map a model's weights. See :class:`FamilyHandler`."""
        layer = (*attention(architecture), *dense_mlp(architecture))
        return decoder_mapping(architecture, [layer] * architecture.transformer["num_layers"])


DEFAULT_DENSE_HANDLER = DefaultDenseHandler()
