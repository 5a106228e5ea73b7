from abc import ABC

from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.spec_utils import ModuleSpec
from torch import nn

from .shared_experts import SharedExpertMLP

class MoESubmodules:
    def __init__(
        self,
        experts: ModuleSpec | type | None = None,
        shared_experts: ModuleSpec | type | None = None,
        router: type = ...,
    ) -> None: ...

class MoELayer(MegatronModule, ABC):
    local_expert_indices: list[int]
    experts: nn.Module
    shared_experts: SharedExpertMLP | None
