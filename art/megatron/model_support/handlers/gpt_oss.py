"""GPT-OSS: attention with sinks, sliding windows in every other layer, experts with biases.

OpenAI publishes the experts in MXFP4, with four bits a number, which is refused: a bfloat16 copy is
trained. The checkpoint keeps an expert's matrices ``[in, out]``, and interleaves gate and up in
``gate_up_proj``; so do PEFT and vLLM.
"""

from collections.abc import Mapping
from typing import Any

from megatron.core.fusions.fused_bias_geglu import quick_gelu
from megatron.core.models.gpt import GPTModel
from megatron.core.transformer import TransformerConfig
from torch import Tensor
from transformers import PretrainedConfig

from art.errors import AdapterFormatError
from art.megatron.model_support.families import GPT_OSS_SPEC
from art.megatron.model_support.lora_targets import collect_lora_targets
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

    spec = GPT_OSS_SPEC

    def check_config(self, config: TransformerConfig) -> None:
        """Refuse the config of any model but GPT-OSS. See :class:`FamilyHandler`."""
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
        fields = read_fields(config, self.spec.model_types, self.key)
        transformer = read_attention(fields)
        transformer |= read_sliding_window(fields, transformer["num_layers"])
        transformer |= read_experts(fields, normalized=True, intermediate_size="intermediate_size")
        transformer |= _read_activation(fields)
        transformer |= {"add_bias_linear": True, "softmax_type": "learnable", "moe_layer_freq": 1}
        fields.require("attention_bias", True)
        # OpenAI's name for num_experts_per_tok, and the context length before YaRN.
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
        """Give the order of the rows of ``gate_up_proj``. See :class:`FamilyHandler`."""
        if not module.endswith(_GATE_UP):
            return None
        if rows % 2:
            raise AdapterFormatError(
                f"{module}: lora_B has {rows} rows; it must have as many gates as ups"
            )
        return gates_beside_ups(rows)

    def to_vllm_lora_tensors(
        self, tensors: Mapping[str, Tensor], *, adapter_config: Mapping[str, Any]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Convert an adapter's tensors, as trained, to those that vLLM loads.

        Args:
            tensors: The adapter, with ``gate_up_proj`` and ``down_proj`` of every expert.
            adapter_config: Its PEFT config; ``r`` is read.

        Returns:
            vLLM's tensors, with fused experts, and the config with their ``target_modules``.

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
        """Convert vLLM's tensors back to those that training loads.

        Args:
            tensors: The adapter, with fused experts.
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
    """Read the constants of transformers' ``GptOssExperts._apply_gate``."""
    # Megatron's quick_gelu has it built in, as had transformers before there was a field.
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
