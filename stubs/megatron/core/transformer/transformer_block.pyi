from .module import MegatronModule, _ModuleListOf
from .transformer_layer import TransformerLayer

class TransformerBlock(MegatronModule):
    layers: _ModuleListOf[TransformerLayer]
