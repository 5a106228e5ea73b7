"""Dense decoders that no family of their own is written for.

Attention is standard, multi-head or grouped-query; norms and biases are as the config says.
"""

from megatron.core.transformer import TransformerConfig

from art.megatron.model_support.registry import DEFAULT_DENSE_SPEC

from .family import FamilyHandler


class DefaultDenseHandler(FamilyHandler):
    """A dense decoder with standard attention."""

    meta = DEFAULT_DENSE_SPEC.handler

    def check_config(self, config: TransformerConfig) -> None:
        """Refuse a config with experts or another attention. See :class:`FamilyHandler`."""
        super().check_config(config)
        self._require("experimental_attention_variant", config.experimental_attention_variant, None)


DEFAULT_DENSE_HANDLER = DefaultDenseHandler()
