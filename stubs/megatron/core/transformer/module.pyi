from torch import nn

from .transformer_config import TransformerConfig

class MegatronModule(nn.Module):
    config: TransformerConfig
