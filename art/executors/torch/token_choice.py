"""The next token of each row, drawn from its logits.

Shapes: B rows, V vocabulary, F rows whose distribution is filtered, K draws of a row.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from art.executors.types import SamplingParams


def choose_tokens(
    logits_BV: torch.Tensor, params: Sequence[SamplingParams], uniforms: Sequence[float]
) -> torch.Tensor:
    """Draw one token a row by inverting the cumulative distribution.

    Temperature comes first, then ``top_k``, then ``top_p`` (the fewest tokens whose probability
    reaches it), then ``min_p``, as in ``transformers``. A row's token depends on its own logits,
    parameters and uniform number only.

    Args:
        logits_BV: float32; -inf is never drawn, and each row has a finite one.
        params: One a row.
        uniforms: In ``[0, 1)``, one a row.

    Returns:
        int64 ``[B]``.
    """
    device, vocabulary = logits_BV.device, logits_BV.shape[1]
    temperature_B = torch.tensor([p.temperature for p in params], device=device)
    greedy_B = temperature_B == 0
    scaled_BV = logits_BV / torch.where(greedy_B, 1.0, temperature_B)[:, None]
    sampled = [(row, p) for row, p in enumerate(params) if p.temperature > 0]
    filtered = [row for row, p in sampled if p.top_p < 1 or 0 < p.top_k < vocabulary]
    if filtered:
        rows_F = torch.tensor(filtered, device=device)
        scaled_BV[rows_F] = _filter(scaled_BV[rows_F], [params[row] for row in filtered])
    for row, p in sampled:
        if p.controls.min_p > 0:
            # The likeliest is never excluded, so what is left of the others does not matter.
            least = scaled_BV[row].max() + math.log(p.controls.min_p)
            scaled_BV[row].masked_fill_(scaled_BV[row] < least, -torch.inf)
    drawn_B = _invert(scaled_BV, np.array(uniforms)[:, None]).squeeze(1)
    return torch.where(greedy_B, logits_BV.argmax(dim=-1), drawn_B)


def draw_tokens(
    logits_BV: torch.Tensor, temperature: float, uniforms_BK: npt.NDArray[np.float64]
) -> torch.Tensor:
    """Draw K tokens a row with replacement, at a temperature; 0 is the likeliest.

    Args:
        logits_BV: float32.
        temperature: 0 or more.
        uniforms_BK: In ``[0, 1)``.

    Returns:
        int64 ``[B, K]``.
    """
    if temperature == 0:
        return logits_BV.argmax(dim=-1, keepdim=True).expand(uniforms_BK.shape)
    return _invert(logits_BV / temperature, uniforms_BK)


def _invert(scaled_BV: torch.Tensor, uniforms_BK: npt.NDArray[np.float64]) -> torch.Tensor:
    """Find the tokens whose part of the cumulative distribution holds the numbers: ``[B, K]``."""
    device, vocabulary = scaled_BV.device, scaled_BV.shape[1]
    # In float32 the sum over a large vocabulary would lose the tail; MPS has nothing wider.
    wide = torch.float32 if device.type == "mps" else torch.float64
    cumulative_BV = torch.softmax(scaled_BV, dim=-1, dtype=wide).cumsum(dim=-1)
    uniforms = torch.tensor(uniforms_BK, dtype=wide, device=device)
    # The first token whose cumulative probability exceeds the number: never one of probability 0.
    drawn_BK = torch.searchsorted(cumulative_BV, uniforms * cumulative_BV[:, -1:], right=True)
    # There is none where the number was rounded up to 1, as float32 may.
    likeliest_B1 = scaled_BV.argmax(dim=-1, keepdim=True)
    return torch.where(drawn_BK == vocabulary, likeliest_B1, drawn_BK)


def _filter(logits_FV: torch.Tensor, params: Sequence[SamplingParams]) -> torch.Tensor:
    """Set to -inf what ``top_k`` and ``top_p`` exclude."""
    device, vocabulary = logits_FV.device, logits_FV.shape[1]
    top_k_F = torch.tensor([p.top_k if p.top_k > 0 else vocabulary for p in params], device=device)
    top_p_F = torch.tensor([p.top_p for p in params], device=device)
    ordered_FV, order_FV = logits_FV.sort(dim=-1, descending=True, stable=True)
    rank_1V = torch.arange(vocabulary, device=device)[None]
    ordered_FV = ordered_FV.masked_fill(rank_1V >= top_k_F[:, None], -torch.inf)
    # A token stays while those before it do not reach top_p; the most likely always stays.
    probability_FV = torch.softmax(ordered_FV, dim=-1)
    before_FV = probability_FV.cumsum(dim=-1) - probability_FV
    excluded_FV = (before_FV >= top_p_F[:, None]) & (rank_1V > 0) & (top_p_F < 1)[:, None]
    ordered_FV = ordered_FV.masked_fill(excluded_FV, -torch.inf)
    return torch.empty_like(logits_FV).scatter_(1, order_FV, ordered_FV)
