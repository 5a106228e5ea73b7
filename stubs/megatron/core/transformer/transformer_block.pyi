from collections.abc import Iterator

from torch import nn

from .module import MegatronModule
from .transformer_layer import TransformerLayer

# A torch.nn.ModuleList at run time, which cannot say what it holds.
class _Layers(nn.Module):
    def __iter__(self) -> Iterator[TransformerLayer]: ...

class TransformerBlock(MegatronModule):
    layers: _Layers
