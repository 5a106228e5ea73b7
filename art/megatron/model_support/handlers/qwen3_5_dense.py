"""Qwen3.5 and later without experts: gated delta nets, and gated attention every few layers.

vLLM serves these models with their vision-language class, so its names contain
``language_model``. The ``q_proj`` of gated attention also computes the output gate.
"""

from collections.abc import Collection, Mapping
from typing import Any

from megatron.core.transformer import TransformerConfig
from torch import Tensor
from transformers import PretrainedConfig

from art.errors import AdapterFormatError
from art.megatron.model_support.families import QWEN3_5_DENSE_SPEC
from art.megatron.model_support.row_order import (
    gates_beside_queries,
    in_hf_order,
    in_trained_order,
)
from art.megatron.model_support.vllm_lora import Adapter, read_adapters, write_adapters
from art.megatron.models.architecture import Architecture
from art.megatron.models.decoder_config import finish, read_attention
from art.megatron.models.hf_config import ConfigFields, read_fields
from art.megatron.weights.decoder import attention, decoder_mapping, dense_mlp
from art.megatron.weights.gated_delta_net import gated_delta_net
from art.megatron.weights.mapping import Parameter, WeightMapping

from .family import FamilyHandler

_TRAINED_PREFIX = "base_model.model.model.layers."
_VLLM_PREFIX = "base_model.model.model.language_model.layers."
_GATED_QUERY = ".self_attn.q_proj"
# Tensors of the published checkpoints that do not belong to the text decoder.
_UNUSED_TENSORS = ("model.visual.", "mtp.")


class Qwen35DenseHandler(FamilyHandler):
    """Qwen3.5, dense."""

    spec = QWEN3_5_DENSE_SPEC

    def check_config(self, config: TransformerConfig) -> None:
        """Refuse the config of any model but Qwen3.5. See :class:`FamilyHandler`."""
        super().check_config(config)
        self._require("normalization", config.normalization, "RMSNorm")
        self._require("gated_linear_unit", config.gated_linear_unit, True)
        self._require("qk_layernorm", config.qk_layernorm, True)
        self._require("attention_output_gate", config.attention_output_gate, True)
        self._require(
            "experimental_attention_variant",
            config.experimental_attention_variant,
            "gated_delta_net",
        )

    def read_config(self, config: PretrainedConfig | Mapping[str, Any]) -> Architecture:
        """Read a Hugging Face config. See :class:`FamilyHandler`.

        Of a vision-language model, the text decoder is read.
        """
        # The spec lists the decoder alone, then the vision-language model.
        text_type, _ = self.spec.model_types
        fields = read_fields(config, self.spec.model_types, self.key)
        prefix = "model."
        if fields.model_type != text_type:
            fields = fields.text_section((text_type,))
            prefix = "model.language_model."
        transformer = read_attention(fields)
        transformer |= _read_gated_attention(fields, transformer["num_layers"])
        transformer |= self.read_mlp(fields)
        # rope_parameters has it; transformers before 5.20 keeps a copy that it does not use.
        fields.without_effect("partial_rotary_factor")
        return finish(fields, transformer, partial_rotary=True, tensor_prefix=prefix)

    def read_mlp(self, fields: ConfigFields) -> dict[str, Any]:
        """Read the fields about the MLP.

        Args:
            fields: The fields of a Hugging Face config.

        Returns:
            Arguments of ``TransformerConfig``.

        Raises:
            ConfigurationError: A field is missing or has a value that is not supported.
        """
        return {"ffn_hidden_size": fields.integer("intermediate_size")}

    def map_mlp(self, architecture: Architecture) -> tuple[Parameter, ...]:
        """Map the weights of the MLP and of the norm before it.

        Args:
            architecture: The model.

        Returns:
            The parameters of a layer.
        """
        return dense_mlp(architecture)

    def weight_mapping(self, architecture: Architecture) -> WeightMapping:
        """Map a model's weights. See :class:`FamilyHandler`."""
        kinds = (attention(architecture), gated_delta_net(architecture))
        after = self.map_mlp(architecture)
        pattern = architecture.transformer["linear_attention_freq"]
        layers = [(*kinds[linear], *after) for linear in pattern]
        return decoder_mapping(architecture, layers, unused=_UNUSED_TENSORS)

    def row_order(
        self, module: str, rows: int, *, adapter_config: Mapping[str, Any]
    ) -> Tensor | None:
        """Give the order of the rows of ``q_proj``. See :class:`FamilyHandler`."""
        if not module.endswith(_GATED_QUERY):
            return None
        heads = adapter_config.get("num_attention_heads")
        groups = adapter_config.get("num_key_value_heads")
        if not isinstance(heads, int) or not isinstance(groups, int):
            raise AdapterFormatError(
                f"{module} cannot be converted without the base model's num_attention_heads and "
                "num_key_value_heads; put both in adapter_config"
            )
        if groups < 1 or heads < 1 or heads % groups or rows % (2 * heads):
            raise AdapterFormatError(
                f"{module}: the {rows} rows of lora_B are not a query and a gate for each of "
                f"{heads} heads in {groups} groups"
            )
        return gates_beside_queries(rows, heads, groups)

    def to_vllm_lora_tensors(
        self, tensors: Mapping[str, Tensor], *, adapter_config: Mapping[str, Any]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Convert an adapter's tensors, as trained, to those that vLLM loads.

        Args:
            tensors: The adapter, with the rows of ``q_proj`` in megatron's order.
            adapter_config: Its PEFT config; ``r`` is read, and if there is a ``q_proj``, the base
                model's ``num_attention_heads`` and ``num_key_value_heads``.

        Returns:
            vLLM's tensors, and the config that goes with them.

        Raises:
            AdapterFormatError: A tensor has a name, rank or shape that does not fit.
        """
        adapters = read_adapters(tensors, adapter_config)
        self._refuse_experts(adapters)
        return write_adapters(self.rename_to_vllm(adapters, adapter_config)), dict(adapter_config)

    def from_vllm_lora_tensors(
        self, tensors: Mapping[str, Tensor], *, adapter_config: Mapping[str, Any]
    ) -> dict[str, Tensor]:
        """Convert vLLM's tensors back to those that training loads.

        Args:
            tensors: The adapter, with the rows of ``q_proj`` in Hugging Face's order.
            adapter_config: As for :meth:`to_vllm_lora_tensors`.

        Returns:
            The adapter with the names and the row order of training.

        Raises:
            AdapterFormatError: A tensor has a name, rank or shape that does not fit.
        """
        adapters = read_adapters(tensors, adapter_config)
        self._refuse_experts(adapters)
        return write_adapters(self.rename_from_vllm(adapters, adapter_config))

    def rename_to_vllm(
        self, adapters: Mapping[str, Adapter], adapter_config: Mapping[str, Any]
    ) -> dict[str, Adapter]:
        """Rename modules as vLLM does, and reorder their rows as Hugging Face does.

        Args:
            adapters: Adapters by the names of training.
            adapter_config: The adapter's config, with the base model's numbers of heads.

        Returns:
            Adapters by vLLM's names.

        Raises:
            AdapterFormatError: The config lacks a number of heads, ``q_proj`` does not fit, or a
                layer has ``in_proj_z`` but no ``in_proj_qkv``.
        """
        _refuse_z_alone(adapters)
        return {
            _replace_prefix(module, _TRAINED_PREFIX, _VLLM_PREFIX): adapter
            for module, adapter in in_hf_order(adapters, self, adapter_config).items()
        }

    def rename_from_vllm(
        self, adapters: Mapping[str, Adapter], adapter_config: Mapping[str, Any]
    ) -> dict[str, Adapter]:
        """Undo :meth:`rename_to_vllm`.

        Args:
            adapters: Adapters by vLLM's names.
            adapter_config: The adapter's config, with the base model's numbers of heads.

        Returns:
            Adapters by the names of training.

        Raises:
            AdapterFormatError: As :meth:`rename_to_vllm`.
        """
        renamed = {
            _replace_prefix(module, _VLLM_PREFIX, _TRAINED_PREFIX): adapter
            for module, adapter in adapters.items()
        }
        return in_trained_order(renamed, self, adapter_config)


def _read_gated_attention(fields: ConfigFields, layers: int) -> dict[str, Any]:
    types = fields.layer_types(layers, ("full_attention", "linear_attention"))
    # layer_types says the same in full.
    fields.without_effect("full_attention_interval")
    fields.without_effect("mtp_num_hidden_layers", "mtp_use_dedicated_embeddings")
    fields.require("attention_bias", False)
    fields.require("attn_output_gate", True, optional=True)
    fields.require("mamba_ssm_dtype", "float32", optional=True)
    fields.require("mlp_only_layers", [], optional=True)
    if "output_gate_type" in fields:
        # The gate of gated delta nets; two names for one function.
        fields.choice("output_gate_type", ("silu", "swish"))
    key_heads = fields.integer("linear_num_key_heads")
    value_heads = fields.integer("linear_num_value_heads")
    if value_heads % key_heads:
        raise fields.unsupported(
            "linear_num_value_heads",
            f"linear_num_key_heads={key_heads} must divide it",
            value_heads,
        )
    return {
        "qk_layernorm": True,
        "layernorm_zero_centered_gamma": True,
        "attention_output_gate": True,
        "experimental_attention_variant": "gated_delta_net",
        "linear_attention_freq": [int(kind == "linear_attention") for kind in types],
        "linear_conv_kernel_dim": fields.integer("linear_conv_kernel_dim"),
        "linear_key_head_dim": fields.integer("linear_key_head_dim"),
        "linear_value_head_dim": fields.integer("linear_value_head_dim"),
        "linear_num_key_heads": key_heads,
        "linear_num_value_heads": value_heads,
    }


def _refuse_z_alone(modules: Collection[str]) -> None:
    """Refuse ``in_proj_z`` without ``in_proj_qkv``: vLLM fuses them, and only z is optional."""
    for module in modules:
        if module.endswith(".in_proj_z"):
            beside = f"{module.removesuffix('z')}qkv"
            if beside not in modules:
                raise AdapterFormatError(
                    f"vLLM cannot load {module} without {beside}; adapt both, or in_proj_qkv alone"
                )


def _replace_prefix(module: str, prefix: str, replacement: str) -> str:
    if not module.startswith(prefix):
        raise AdapterFormatError(
            f"{module} is not in the decoder, whose modules start with {prefix!r}"
        )
    return replacement + module.removeprefix(prefix)


QWEN3_5_DENSE_HANDLER = Qwen35DenseHandler()
