from abc import ABC

from megatron.core.transformer.module import MegatronModule
from torch import nn

from .shared_experts import SharedExpertMLP

class MoELayer(MegatronModule, ABC):
    local_expert_indices: list[int]
    experts: nn.Module
    shared_experts: SharedExpertMLP | None
