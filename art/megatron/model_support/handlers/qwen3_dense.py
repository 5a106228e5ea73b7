"""Qwen3 without experts: grouped-query attention with q/k norms, RMSNorm, SwiGLU."""

from megatron.core.transformer import TransformerConfig

from art.megatron.model_support.families import QWEN3_DENSE_SPEC

from .default_dense import DefaultDenseHandler


class Qwen3DenseHandler(DefaultDenseHandler):
    """Qwen3, dense."""

    spec = QWEN3_DENSE_SPEC

    def check_config(self, config: TransformerConfig) -> None:
        """Refuse the config of any model but dense Qwen3. See :class:`FamilyHandler`."""
        super().check_config(config)
        self._require("normalization", config.normalization, "RMSNorm")
        self._require("gated_linear_unit", config.gated_linear_unit, True)
        self._require("qk_layernorm", config.qk_layernorm, True)
        self._require("add_qkv_bias", config.add_qkv_bias, False)


QWEN3_DENSE_HANDLER = Qwen3DenseHandler()
