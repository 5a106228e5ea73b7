from torch import nn
from torch.distributed import ProcessGroup

class ColumnParallelLinear(nn.Module):
    weight: nn.Parameter
    input_size: int
    output_size: int
    is_expert: bool
    explicit_expert_comm: bool
    sequence_parallel: bool
    tp_group: ProcessGroup

class RowParallelLinear(nn.Module):
    weight: nn.Parameter
    input_size: int
    output_size: int
    is_expert: bool
    explicit_expert_comm: bool
    sequence_parallel: bool
    tp_group: ProcessGroup
