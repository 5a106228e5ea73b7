"""Qwen2.5, dense: grouped-query attention with biases on q, k and v, RMSNorm, SwiGLU."""

from megatron.core.transformer import TransformerConfig

from art.megatron.model_support.handlers.family import FamilyHandler

from .spec import QWEN2_5_DENSE_SPEC


class Qwen25DenseHandler(FamilyHandler):
    """Qwen2.5, dense. Its adapters go to vLLM as they are, as :class:`FamilyHandler` does it."""

    meta = QWEN2_5_DENSE_SPEC.handler

    def check_config(self, config: TransformerConfig) -> None:
        """Refuse what is not a dense Qwen2.5. See :class:`FamilyHandler`."""
        super().check_config(config)
        self._require("normalization", config.normalization, "RMSNorm")
        self._require("gated_linear_unit", config.gated_linear_unit, True)
        self._require("qk_layernorm", config.qk_layernorm, False)
        self._require("add_qkv_bias", config.add_qkv_bias, True)
        self._require("experimental_attention_variant", config.experimental_attention_variant, None)


QWEN2_5_DENSE_HANDLER = Qwen25DenseHandler()
