from .module import MegatronModule, _ModuleListOf
from .spec_utils import ModuleSpec
from .transformer_config import TransformerConfig
from .transformer_layer import TransformerLayer

class TransformerBlock(MegatronModule):
    layers: _ModuleListOf[TransformerLayer]

class TransformerBlockSubmodules:
    def __init__(
        self,
        layer_specs: list[ModuleSpec] | None = None,
        layer_norm: ModuleSpec | type | None = None,
    ) -> None: ...

def get_num_layers_to_build(
    config: TransformerConfig, vp_stage: int | None = None, pp_rank: int | None = None
) -> int: ...
