from torch import Tensor
from torch.distributed import ProcessGroup

def copy_to_tensor_model_parallel_region(
    input_: Tensor, group: ProcessGroup | None = None
) -> Tensor: ...
def reduce_from_tensor_model_parallel_region(
    input_: Tensor, group: ProcessGroup | None = None
) -> Tensor: ...
def gather_from_sequence_parallel_region(
    input_: Tensor,
    tensor_parallel_output_grad: bool = True,
    group: ProcessGroup | None = None,
    output_split_sizes: list[int] | None = None,
    use_global_buffer: bool = False,
) -> Tensor: ...
def reduce_scatter_to_sequence_parallel_region(
    input_: Tensor,
    group: ProcessGroup | None = None,
    input_split_sizes: list[int] | None = None,
    use_global_buffer: bool = False,
) -> Tensor: ...
