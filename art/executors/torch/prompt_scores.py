"""Scores of a request's own prompt: logprobs, likeliest tokens, and draws in its place.

Shapes: P tokens of the prompt, M positions but the first (M = P - 1), K tokens a position, L
targets, D hidden size, V vocabulary.
"""

from dataclasses import dataclass

import numpy as np
import torch

from art.executors.torch.language_model import LanguageModel
from art.executors.torch.token_choice import draw_tokens
from art.executors.types import FloatArray, IntArray, SampleRequest

# The stream of random numbers of the draws, beside those of the samples, which count from 0.
_DRAWS_KEY = 1 << 31
# Logits that are drawn from at a time: 128 MiB as float64, a few times over.
_MAX_LOGITS = 2**24


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptScores:
    """The fields of :class:`~art.executors.types.SampleResult` that are about the prompt."""

    prompt_logprobs: FloatArray | None = None
    topk_prompt_logprobs: tuple[IntArray, FloatArray] | None = None
    target_prompt_logprobs: FloatArray | None = None
    prompt_alternatives: tuple[IntArray, FloatArray] | None = None


def asks_of_prompt(request: SampleRequest) -> bool:
    """Tell whether a request asks for any of :class:`PromptScores`."""
    return bool(
        request.prompt_logprobs
        or request.topk_prompt_logprobs
        or request.target_prompt_tokens is not None
        or request.prompt_alternatives
    )


def score_prompt(
    request: SampleRequest, language_model: LanguageModel, hidden_PD: torch.Tensor
) -> PromptScores:
    """Compute what a request asks of its prompt, from the hidden states of the prompt."""
    # The state of a position predicts the next one, and the first is predicted by nothing.
    hidden_MD = hidden_PD[:-1]
    topk = request.topk_prompt_logprobs
    return PromptScores(
        prompt_logprobs=(
            _logprobs(request.prompt, language_model, hidden_MD)
            if request.prompt_logprobs
            else None
        ),
        topk_prompt_logprobs=_likeliest(topk, language_model, hidden_MD) if topk else None,
        target_prompt_logprobs=(
            None
            if request.target_prompt_tokens is None
            else _token_logprobs(language_model, hidden_MD, *request.target_prompt_tokens)
        ),
        prompt_alternatives=(
            _draw(request, language_model, hidden_MD) if request.prompt_alternatives else None
        ),
    )


def _logprobs(
    prompt_P: IntArray, language_model: LanguageModel, hidden_MD: torch.Tensor
) -> FloatArray:
    logprobs_P = np.full(len(prompt_P), np.nan, np.float32)
    rows_M = np.arange(len(hidden_MD))
    logprobs_P[1:] = _token_logprobs(language_model, hidden_MD, rows_M, prompt_P[1:])
    return logprobs_P


def _token_logprobs(
    language_model: LanguageModel, hidden_MD: torch.Tensor, rows_L: IntArray, tokens_L: IntArray
) -> FloatArray:
    device = hidden_MD.device
    logprobs_L = language_model.token_logprobs(
        hidden_MD, torch.tensor(rows_L, device=device), torch.tensor(tokens_L, device=device)
    )
    found: FloatArray = logprobs_L.cpu().numpy()
    return found


def _likeliest(
    k: int, language_model: LanguageModel, hidden_MD: torch.Tensor
) -> tuple[IntArray, FloatArray]:
    ids_PK = np.full((len(hidden_MD) + 1, k), -1, np.int64)
    logprobs_PK = np.full((len(hidden_MD) + 1, k), np.nan, np.float32)
    if len(hidden_MD):
        ids_MK, logprobs_MK = language_model.topk_logprobs(hidden_MD, k)
        ids_PK[1:], logprobs_PK[1:] = ids_MK.cpu().numpy(), logprobs_MK.cpu().numpy()
    return ids_PK, logprobs_PK


def _draw(
    request: SampleRequest, language_model: LanguageModel, hidden_MD: torch.Tensor
) -> tuple[IntArray, FloatArray]:
    """Draw tokens at each position, with replacement, and compute their logprobs."""
    seed = np.random.SeedSequence(request.params.seed, spawn_key=(_DRAWS_KEY,))
    stream = np.random.Generator(np.random.Philox(seed))
    uniforms_MK = stream.random((len(hidden_MD), request.prompt_alternatives))
    tokens_MK = np.empty(uniforms_MK.shape, np.int64)
    logprobs_MK = np.empty(uniforms_MK.shape, np.float32)
    chunk = max(1, _MAX_LOGITS // language_model.vocab_size)
    for start in range(0, len(hidden_MD), chunk):
        part = slice(start, start + chunk)
        logits_MV = language_model.logits(hidden_MD[part])
        drawn_MK = draw_tokens(logits_MV, request.params.temperature, uniforms_MK[part])
        drawn_logits_MK = logits_MV.gather(1, drawn_MK)
        logprobs = drawn_logits_MK - torch.logsumexp(logits_MV, dim=-1, keepdim=True)
        tokens_MK[part], logprobs_MK[part] = drawn_MK.cpu().numpy(), logprobs.cpu().numpy()
    return tokens_MK, logprobs_MK
