from abc import ABC

from torch import nn

from .module import MegatronModule

class TransformerLayer(MegatronModule, ABC):
    layer_number: int
    self_attention: nn.Module
    mlp: nn.Module
