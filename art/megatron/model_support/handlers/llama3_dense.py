"""Llama 3 to 3.3, text only, and SmolLM2, which has the same layers.

Grouped-query attention without biases or q/k norms, RMSNorm, SwiGLU.
"""

from megatron.core.transformer import TransformerConfig

from art.megatron.model_support.families import LLAMA3_DENSE_SPEC

from .default_dense import DefaultDenseHandler


class Llama3DenseHandler(DefaultDenseHandler):
    """Llama 3."""

    spec = LLAMA3_DENSE_SPEC

    def check_config(self, config: TransformerConfig) -> None:
        """Refuse the config of any model but Llama 3. See :class:`FamilyHandler`."""
        super().check_config(config)
        self._require("normalization", config.normalization, "RMSNorm")
        self._require("gated_linear_unit", config.gated_linear_unit, True)
        self._require("qk_layernorm", config.qk_layernorm, False)
        self._require("add_qkv_bias", config.add_qkv_bias, False)


LLAMA3_DENSE_HANDLER = Llama3DenseHandler()
