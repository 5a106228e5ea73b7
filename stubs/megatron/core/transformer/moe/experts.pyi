from collections.abc import Iterator

from megatron.core.transformer.mlp import MLP
from megatron.core.transformer.module import MegatronModule
from torch import nn

class TEGroupedMLP(MegatronModule): ...

# A torch.nn.ModuleList at run time, which cannot say what it holds.
class _LocalExperts(nn.Module):
    def __iter__(self) -> Iterator[MLP]: ...

class SequentialMLP(MegatronModule):
    local_experts: _LocalExperts
