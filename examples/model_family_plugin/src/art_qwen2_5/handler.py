"""Qwen2.5, dense: grouped-query attention with biases on q, k and v, RMSNorm, SwiGLU."""

from megatron.core.transformer import TransformerConfig

from art.megatron.model_support.handlers import DefaultDenseHandler

from .spec import QWEN2_5_DENSE_SPEC


class Qwen25DenseHandler(DefaultDenseHandler):
    """Qwen2.5, dense: the default decoder, of configs that have biases on q, k and v alone."""

    spec = QWEN2_5_DENSE_SPEC

    def check_config(self, config: TransformerConfig) -> None:
        """Refuse the config of any model but dense Qwen2.5. See :class:`DefaultDenseHandler`."""
        super().check_config(config)
        self._require("normalization", config.normalization, "RMSNorm")
        self._require("gated_linear_unit", config.gated_linear_unit, True)
        self._require("qk_layernorm", config.qk_layernorm, False)
        self._require("add_qkv_bias", config.add_qkv_bias, True)


QWEN2_5_DENSE_HANDLER = Qwen25DenseHandler()
