from abc import ABC

from torch import nn

from .module import MegatronModule
from .spec_utils import ModuleSpec
from .transformer_config import TransformerConfig

class TransformerLayer(MegatronModule, ABC):
    layer_number: int
    self_attention: nn.Module
    mlp: nn.Module

class TransformerLayerSubmodules:
    def __init__(
        self,
        input_layernorm: ModuleSpec | type = ...,
        self_attention: ModuleSpec | type = ...,
        self_attn_bda: object = ...,
        pre_cross_attn_layernorm: ModuleSpec | type = ...,
        cross_attention: ModuleSpec | type = ...,
        cross_attn_bda: object = ...,
        pre_mlp_layernorm: ModuleSpec | type = ...,
        mlp: ModuleSpec | type = ...,
        mlp_bda: object = ...,
        sharded_state_dict_keys_map: dict[str, str] = ...,
    ) -> None: ...

def get_transformer_layer_offset(
    config: TransformerConfig, vp_stage: int | None = None, pp_rank: int | None = None
) -> int: ...
