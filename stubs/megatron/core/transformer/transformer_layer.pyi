from torch import nn

from .module import MegatronModule

class TransformerLayer(MegatronModule):
    layer_number: int
    self_attention: nn.Module
    mlp: nn.Module
