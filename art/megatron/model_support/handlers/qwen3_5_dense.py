"""Qwen3.5 and later without experts: gated delta nets, and gated attention every few layers.

vLLM serves these models by their vision-language class, so its names have ``language_model`` in
them. Gated attention's ``q_proj`` also makes the output gate. Both orders of its rows::

    Hugging Face, vLLM   of each head: query, gate           [heads, 2, head_dim]
    megatron             of each group: queries, then gates  [groups, 2, heads / groups, head_dim]
"""

from collections.abc import Mapping
from typing import Any

from megatron.core.transformer import TransformerConfig
from torch import Tensor

from art.errors import AdapterFormatError
from art.megatron.model_support.registry import QWEN3_5_DENSE_SPEC
from art.megatron.model_support.vllm_lora import Adapter, read_adapters, write_adapters

from .family import FamilyHandler

_TRAINED_PREFIX = "base_model.model.model.layers."
_VLLM_PREFIX = "base_model.model.model.language_model.layers."
_GATED_QUERY = ".self_attn.q_proj"


class Qwen35DenseHandler(FamilyHandler):
    """Qwen3.5, dense."""

    meta = QWEN3_5_DENSE_SPEC.handler

    def check_config(self, config: TransformerConfig) -> None:
        """Refuse what is not a Qwen3.5. See :class:`FamilyHandler`."""
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

    def to_vllm_lora_tensors(
        self, tensors: Mapping[str, Tensor], *, adapter_config: Mapping[str, Any]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Turn an adapter's tensors, as trained, into those that vLLM loads.

        Args:
            tensors: The adapter, with the rows of ``q_proj`` in megatron's order.
            adapter_config: Its PEFT config; ``r`` is read, and where there is a ``q_proj``, the
                base model's ``num_attention_heads`` and ``num_key_value_heads``.

        Returns:
            vLLM's tensors, and the config that goes with them.

        Raises:
            AdapterFormatError: A tensor has a name, rank or shape that does not fit.
        """
        adapters = read_adapters(tensors, adapter_config)
        self._refuse_experts(adapters)
        return write_adapters(rename_to_vllm(adapters, adapter_config)), dict(adapter_config)

    def from_vllm_lora_tensors(
        self, tensors: Mapping[str, Tensor], *, adapter_config: Mapping[str, Any]
    ) -> dict[str, Tensor]:
        """Turn vLLM's tensors back into those that training loads.

        Args:
            tensors: The adapter, with the rows of ``q_proj`` in Hugging Face's order.
            adapter_config: As for :meth:`to_vllm_lora_tensors`.

        Returns:
            The adapter by the names, and in the order, that training has.

        Raises:
            AdapterFormatError: A tensor has a name, rank or shape that does not fit.
        """
        adapters = read_adapters(tensors, adapter_config)
        self._refuse_experts(adapters)
        return write_adapters(rename_from_vllm(adapters, adapter_config))


def rename_to_vllm(
    adapters: Mapping[str, Adapter], adapter_config: Mapping[str, Any]
) -> dict[str, Adapter]:
    """Give modules vLLM's names, and the rows of ``q_proj`` Hugging Face's order.

    Args:
        adapters: Adapters by the names of training.
        adapter_config: The adapter's config, with the base model's numbers of heads.

    Returns:
        Adapters by vLLM's names.

    Raises:
        AdapterFormatError: The config lacks a number of heads, or ``q_proj`` does not fit them.
    """
    return {
        _replace_prefix(module, _TRAINED_PREFIX, _VLLM_PREFIX): (
            Adapter(adapter.a, _interleave_gate(module, adapter.b, adapter_config))
            if module.endswith(_GATED_QUERY)
            else adapter
        )
        for module, adapter in adapters.items()
    }


def rename_from_vllm(
    adapters: Mapping[str, Adapter], adapter_config: Mapping[str, Any]
) -> dict[str, Adapter]:
    """Undo :func:`rename_to_vllm`.

    Args:
        adapters: Adapters by vLLM's names.
        adapter_config: The adapter's config, with the base model's numbers of heads.

    Returns:
        Adapters by the names of training.

    Raises:
        AdapterFormatError: As :func:`rename_to_vllm`.
    """
    return {
        _replace_prefix(module, _VLLM_PREFIX, _TRAINED_PREFIX): (
            Adapter(adapter.a, _group_gate(module, adapter.b, adapter_config))
            if module.endswith(_GATED_QUERY)
            else adapter
        )
        for module, adapter in adapters.items()
    }


def _replace_prefix(module: str, prefix: str, replacement: str) -> str:
    if not module.startswith(prefix):
        raise AdapterFormatError(f"{module} is not in the decoder, whose modules start {prefix!r}")
    return replacement + module.removeprefix(prefix)


def _interleave_gate(module: str, b: Tensor, adapter_config: Mapping[str, Any]) -> Tensor:
    """From megatron's rows ``[groups, 2, heads / groups, head_dim]`` to Hugging Face's."""
    heads, groups = _heads(module, b, adapter_config)
    grouped = b.reshape(groups, 2, heads // groups, -1, b.shape[1])
    return grouped.transpose(1, 2).reshape(b.shape)


def _group_gate(module: str, b: Tensor, adapter_config: Mapping[str, Any]) -> Tensor:
    """From Hugging Face's rows ``[heads, 2, head_dim]`` to megatron's."""
    heads, groups = _heads(module, b, adapter_config)
    interleaved = b.reshape(groups, heads // groups, 2, -1, b.shape[1])
    return interleaved.transpose(1, 2).reshape(b.shape)


def _heads(module: str, b: Tensor, adapter_config: Mapping[str, Any]) -> tuple[int, int]:
    """Read how many heads a model has, and how many groups of them share a key."""
    heads = adapter_config.get("num_attention_heads")
    groups = adapter_config.get("num_key_value_heads")
    if not isinstance(heads, int) or not isinstance(groups, int):
        raise AdapterFormatError(
            f"{module} cannot be converted without the base model's num_attention_heads and "
            "num_key_value_heads; put both in adapter_config"
        )
    if groups < 1 or heads < 1 or heads % groups or b.shape[0] % (2 * heads):
        raise AdapterFormatError(
            f"{module}: the {b.shape[0]} rows of lora_B are not a query and a gate for each of "
            f"{heads} heads in {groups} groups"
        )
    return heads, groups


QWEN3_5_DENSE_HANDLER = Qwen35DenseHandler()
