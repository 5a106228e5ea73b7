from abc import ABC

from torch import Tensor, nn

from .module import MegatronModule
from .spec_utils import ModuleSpec

class SelfAttentionSubmodules:
    def __init__(
        self,
        linear_qkv: type,
        core_attention: type,
        linear_proj: ModuleSpec | type | None = None,
        q_layernorm: ModuleSpec | type | None = None,
        k_layernorm: ModuleSpec | type | None = None,
    ) -> None: ...

class SelfAttention(MegatronModule, ABC):
    linear_qkv: nn.Module
    q_layernorm: nn.Module

    def get_query_key_value_tensors(
        self,
        hidden_states: Tensor,
        key_value_states: Tensor | None = None,
        output_gate: bool = False,
        split_qkv: bool = True,
    ) -> tuple[Tensor, ...]: ...
