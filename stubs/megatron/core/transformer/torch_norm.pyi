from .transformer_config import TransformerConfig

class WrappedTorchNorm:
    # At run time a torch.nn.LayerNorm or a torch.nn.RMSNorm.
    def __new__(
        cls,
        config: TransformerConfig,
        hidden_size: int,
        eps: float = 1e-5,
        persist_layer_norm: bool = False,
        zero_centered_gamma: bool = False,
        normalization: str = "LayerNorm",
    ) -> WrappedTorchNorm: ...
