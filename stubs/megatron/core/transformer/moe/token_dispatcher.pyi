from megatron.core.transformer.moe.moe_utils import (
    maybe_move_tensor_to_cpu as maybe_move_tensor_to_cpu,
)
from torch import Tensor

class MoEAlltoAllTokenDispatcher:
    def _maybe_dtoh_and_synchronize(
        self, point: str, tokens_per_expert: Tensor | None = None
    ) -> Tensor: ...
