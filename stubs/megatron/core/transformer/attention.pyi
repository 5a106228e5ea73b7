from abc import ABC

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

class SelfAttention(MegatronModule, ABC): ...
