from abc import ABC

from megatron.core.transformer.module import MegatronModule
from torch import Tensor, nn

class TopKRouter(MegatronModule, ABC):
    weight: nn.Parameter
    bias: nn.Parameter | None

    def gating(self, input: Tensor) -> Tensor: ...
