"""GPT-OSS: attention with sinks, in sliding windows in every other layer; experts with biases.

OpenAI publishes the experts in MXFP4, four bits a number, which is refused: what is trained is a
bfloat16 copy. The checkpoint keeps an expert's matrices ``[in, out]``, and in ``gate_up_proj``
each gate beside its up; so do PEFT and vLLM.
"""

from collections.abc import Mapping
from typing import Any

from megatron.core.fusions.fused_bias_geglu import quick_gelu
from megatron.core.models.gpt import GPTModel
from megatron.core.transformer import TransformerConfig
from torch import Tensor
from transformers import PretrainedConfig

from art.errors import AdapterFormatError
from art.megatron.model_support.lora_targets import collect_lora_targets
from art.megatron.model_support.registry import GPT_OSS_SPEC
from art.megatron.model_support.row_order import (
    gates_beside_ups,
    in_hf_order,
    in_trained_order,
)
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
from art.megatron.models.decoder_config import (
    finish,
    read_attention,
    read_experts,
    read_sliding_window,
)
from art.megatron.models.hf_config import ConfigFields, read_fields
from art.megatron.weights.decoder import attention, decoder_mapping, whole
from art.megatron.weights.layout import Layout, Part
from art.megatron.weights.mapping import Parameter, WeightMapping

from .family import FamilyHandler

_GATE_UP = ".gate_up_proj"


class GptOssHandler(FamilyHandler):
    """GPT-OSS."""

    meta = GPT_OSS_SPEC.handler

    def check_config(self, config: TransformerConfig) -> None:
        """Refuse what is not a GPT-OSS. See :class:`FamilyHandler`."""
        super().check_config(config)
        self._require("normalization", config.normalization, "RMSNorm")
        self._require("gated_linear_unit", config.gated_linear_unit, True)
        self._require("glu_linear_offset", config.glu_linear_offset, 1.0)
        self._require("add_bias_linear", config.add_bias_linear, True)
        self._require("softmax_type", config.softmax_type, "learnable")
        self._require("qk_layernorm", config.qk_layernorm, False)
        self._require("experimental_attention_variant", config.experimental_attention_variant, None)
        self._require(
            "moe_shared_expert_intermediate_size", config.moe_shared_expert_intermediate_size, None
        )

    def read_config(self, config: PretrainedConfig | Mapping[str, Any]) -> Architecture:
        """Read a Hugging Face config. See :class:`FamilyHandler`."""
        fields = read_fields(config, ("gpt_oss",), self.key)
        transformer = read_attention(fields)
        transformer |= read_sliding_window(fields, transformer["num_layers"])
        transformer |= read_experts(fields, normalized=True, intermediate_size="intermediate_size")
        transformer |= _read_activation(fields)
        transformer |= {"add_bias_linear": True, "softmax_type": "learnable", "moe_layer_freq": 1}
        fields.require("attention_bias", True)
        # What OpenAI's own code calls num_experts_per_tok, and the context before YaRN.
        fields.require("experts_per_token", transformer["moe_router_topk"], optional=True)
        fields.without_effect("initial_context_length")
        return finish(fields, transformer)

    def weight_mapping(self, architecture: Architecture) -> WeightMapping:
        """Map a model's weights. See :class:`FamilyHandler`."""
        layer = (*attention(architecture), *_routed_experts(architecture))
        return decoder_mapping(architecture, [layer] * architecture.transformer["num_layers"])

    def collect_lora_targets(self, model: GPTModel) -> list[LoraTarget]:
        """List the linear modules that can take an adapter. See :class:`FamilyHandler`."""
        self.check_config(model.config)
        return collect_lora_targets(model, expert_fc1=("gate_up_proj",))

    def row_order(
        self, module: str, rows: int, *, adapter_config: Mapping[str, Any]
    ) -> Tensor | None:
        """Say how ``gate_up_proj`` keeps gates and ups. See :class:`FamilyHandler`."""
        if not module.endswith(_GATE_UP):
            return None
        if rows % 2:
            raise AdapterFormatError(
                f"{module}: the {rows} rows of lora_B are not as many gates as ups"
            )
        return gates_beside_ups(rows)

    def to_vllm_lora_tensors(
        self, tensors: Mapping[str, Tensor], *, adapter_config: Mapping[str, Any]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Turn an adapter's tensors, as trained, into those that vLLM loads.

        Args:
            tensors: The adapter, with ``gate_up_proj`` and ``down_proj`` of every expert.
            adapter_config: Its PEFT config; ``r`` is read.

        Returns:
            vLLM's tensors, experts fused, and the config with the ``target_modules`` that they
            have.

        Raises:
            AdapterFormatError: A tensor has a name, rank or shape that does not fit.
        """
        adapters = in_hf_order(read_adapters(tensors, adapter_config), self, adapter_config)
        adapters = fuse_trained_experts(adapters)
        config = {**adapter_config, "target_modules": target_modules_of(adapters)}
        return write_adapters(adapters), config

    def from_vllm_lora_tensors(
        self, tensors: Mapping[str, Tensor], *, adapter_config: Mapping[str, Any]
    ) -> dict[str, Tensor]:
        """Turn vLLM's tensors back into those that training loads.

        Args:
            tensors: The adapter, experts fused.
            adapter_config: Its PEFT config; ``r`` is read.

        Returns:
            The adapter, with ``gate_up_proj`` and ``down_proj`` of every expert.

        Raises:
            AdapterFormatError: A tensor has a name, rank or shape that does not fit.
        """
        adapters = unfuse_served_experts(
            read_adapters(tensors, adapter_config), rank_of(adapter_config), family=self.key
        )
        return write_adapters(in_trained_order(adapters, self, adapter_config))


def _read_activation(fields: ConfigFields) -> dict[str, Any]:
    """Read what transformers' ``GptOssExperts._apply_gate`` computes with."""
    # It is written into megatron's quick_gelu, and into transformers before it had the field.
    fields.require("swiglu_alpha", 1.702, optional=True)
    return {
        "activation_func": quick_gelu,
        "activation_func_clamp_value": fields.number("swiglu_limit"),
        "glu_linear_offset": 1.0,
    }


def _routed_experts(architecture: Architecture) -> tuple[Parameter, ...]:
    """Map a router and its experts, and the norm before them."""
    config = architecture.transformer
    hf = f"{architecture.tensor_prefix}layers.{{layer}}."
    gate_up, down = f"{hf}mlp.experts.gate_up_proj", f"{hf}mlp.experts.down_proj"
    hidden, intermediate = config["hidden_size"], config["moe_ffn_hidden_size"]
    experts, both = config["num_moe_experts"], 2 * intermediate
    halves = (range(0, both, 2), range(1, both, 2))
    fc1 = [Part(gate_up, (hidden, both), half, experts=experts, transposed=True) for half in halves]
    fc1_bias = [Part(f"{gate_up}_bias", (both,), half, experts=experts) for half in halves]
    fc2 = Part(down, (intermediate, hidden), experts=experts, transposed=True)
    fc2_bias = Part(f"{down}_bias", (hidden,), experts=experts)
    of_expert = {
        "linear_fc1.weight": Layout(tuple(fc1)),
        "linear_fc1.bias": Layout(tuple(fc1_bias)),
        "linear_fc2.weight": Layout((fc2,), dim=1),
        "linear_fc2.bias": Layout((fc2_bias,), dim=None),
    }
    return (
        whole("pre_mlp_layernorm.weight", f"{hf}post_attention_layernorm.weight", hidden),
        whole("mlp.router.weight", f"{hf}mlp.router.weight", experts, hidden),
        whole("mlp.router.bias", f"{hf}mlp.router.bias", experts),
        *(
            Parameter(f"mlp.experts.local_experts.{{expert}}.{name}", layout, of_experts=True)
            for name, layout in of_expert.items()
        ),
    )


GPT_OSS_HANDLER = GptOssHandler()
