from megatron.core.transformer.mlp import MLP
from megatron.core.transformer.module import MegatronModule, _ModuleListOf

class TEGroupedMLP(MegatronModule): ...

class SequentialMLP(MegatronModule):
    local_experts: _ModuleListOf[MLP]
