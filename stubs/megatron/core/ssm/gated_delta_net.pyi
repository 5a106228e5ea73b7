from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.spec_utils import ModuleSpec
from torch import Tensor

HAVE_FLA: bool

class GatedDeltaNetSubmodules:
    def __init__(
        self,
        in_proj: ModuleSpec | type = ...,
        out_norm: ModuleSpec | type = ...,
        out_proj: ModuleSpec | type = ...,
    ) -> None: ...

class GatedDeltaNet(MegatronModule): ...

def torch_chunk_gated_delta_rule(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    g: Tensor,
    beta: Tensor,
    chunk_size: int = 64,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    use_qk_l2norm_in_kernel: bool = False,
) -> tuple[Tensor, Tensor | None]: ...
