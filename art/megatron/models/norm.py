"""RMSNorm (arXiv 1910.07467) that works under sequence parallelism, with or without CUDA.

megatron-core's own layers use torch's RMSNorm, which supports neither sequence parallelism nor
weights centred at zero.

Axes: T tokens (any number of axes), H hidden size.
"""

import torch
from megatron.core.transformer import TransformerConfig
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """Divide by the root mean square over the last dimension, then scale by a weight.

    The mean is computed in float32. A weight centred at zero (the config's
    ``layernorm_zero_centered_gamma``) is stored as its difference from 1 and applied in float32;
    any other is applied in the input's dtype. Both are as in transformers.

    Args:
        config: The model's config.
        hidden_size: The size H of the last dimension.
        eps: Added to the mean of the squares.
        zero_centered: Overrides the config.
    """

    def __init__(
        self,
        config: TransformerConfig,
        hidden_size: int,
        eps: float,
        *,
        zero_centered: bool | None = None,
    ) -> None:
        super().__init__()
        if zero_centered is None:
            zero_centered = config.layernorm_zero_centered_gamma
        self.zero_centered = zero_centered
        self.eps = eps
        device = "cpu" if config.use_cpu_initialization else torch.cuda.current_device()
        start = torch.zeros if zero_centered else torch.ones
        self.weight = nn.Parameter(start(hidden_size, dtype=config.params_dtype, device=device))
        # Under sequence parallelism each rank sees only a part of the sequence, so megatron has
        # to sum the weight's gradient over the ranks. It does so where it finds this attribute.
        setattr(self.weight, "sequence_parallel", config.sequence_parallel)  # noqa: B010

    def forward(self, x_TH: Tensor) -> Tensor:
        """Normalise ``[T, H]``; the result has the same shape and dtype."""
        wide_TH = x_TH.float()
        wide_TH = wide_TH * torch.rsqrt(wide_TH.square().mean(dim=-1, keepdim=True) + self.eps)
        if self.zero_centered:
            return (wide_TH * (1.0 + self.weight.float())).type_as(x_TH)
        return self.weight * wide_TH.type_as(x_TH)
