from torch import Tensor

def maybe_move_tensor_to_cpu(
    tensor: Tensor, as_numpy: bool = False, record_stream: bool = False
) -> object: ...
