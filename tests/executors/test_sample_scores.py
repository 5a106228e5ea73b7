"""Logprobs beside those of sampled tokens, against plain forward passes.

Shapes: P tokens of a prompt, M positions but the first, K tokens a position, N sampled tokens, V
vocabulary.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch

from art.errors import InvalidRequestError
from art.executors.torch.executor import TorchExecutor
from tests.executors.torch_cases import VOCABULARY, request, sample, tokens_of

ENDLESS = (VOCABULARY,)
PROMPT = np.arange(20, 32)


def plain_logprobs(
    executor: TorchExecutor, adapter: str | None, tokens: npt.NDArray[np.int64]
) -> torch.Tensor:
    """Logprobs ``[M, V]`` of every token at every position but the first."""
    name = None if adapter is None else f"sampled {adapter}"
    with executor._adapters.turn(name), torch.no_grad():
        logits = executor._language_model.model(torch.tensor(tokens)[None]).logits[0]
    return torch.log_softmax(logits[:-1].double(), dim=-1)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_the_most_likely_tokens_of_a_sample_are_those_of_a_plain_pass(
    executor: TorchExecutor, adapter: str, temperature: float
) -> None:
    params = {"max_tokens": 6, "temperature": temperature, "seed": 1, "stop_token_ids": ENDLESS}
    requests = [
        replace(request(PROMPT, adapter, num_samples=2, **params), topk_logprobs=k)
        for k in (3, 0, 5)
    ]
    results = sample(executor, requests)
    for each, found in zip(requests, results, strict=True):
        for sequence in found.sequences:
            if not each.topk_logprobs:
                assert sequence.topk_logprobs is None
                continue
            assert sequence.topk_logprobs is not None
            tokens_NK, logprobs_NK = sequence.topk_logprobs
            plain_MV = plain_logprobs(executor, adapter, np.concatenate([PROMPT, sequence.tokens]))
            expected_NK = plain_MV[-6:].topk(each.topk_logprobs, dim=-1)
            np.testing.assert_array_equal(tokens_NK, expected_NK.indices)
            np.testing.assert_allclose(logprobs_NK, expected_NK.values, atol=1e-5)


def test_target_logprobs_are_those_of_a_plain_pass(executor: TorchExecutor, adapter: str) -> None:
    rows_L, tokens_L = np.array([0, 0, 3, 10, 10, 10]), np.array([7, 40_000, 7, 1, 2, 7])
    asking = replace(
        request(PROMPT, adapter, max_tokens=1), target_prompt_tokens=(rows_L, tokens_L)
    )
    (found,) = sample(executor, [asking])
    assert found.target_prompt_logprobs is not None
    plain_MV = plain_logprobs(executor, adapter, PROMPT)
    np.testing.assert_allclose(found.target_prompt_logprobs, plain_MV[rows_L, tokens_L], atol=1e-5)


def test_alternatives_are_draws_from_the_tempered_distribution_with_the_models_logprobs(
    executor: TorchExecutor, adapter: str
) -> None:
    draws, temperature = 4000, 0.8
    asking = replace(
        request(PROMPT, adapter, max_tokens=1, temperature=temperature, top_k=2, seed=3),
        prompt_alternatives=draws,
    )
    (found,) = sample(executor, [asking])
    assert found.prompt_alternatives is not None
    tokens_MK, logprobs_MK = found.prompt_alternatives
    assert tokens_MK.shape == logprobs_MK.shape == (len(PROMPT) - 1, draws)
    plain_MV = plain_logprobs(executor, adapter, PROMPT)
    np.testing.assert_allclose(logprobs_MK, plain_MV.gather(1, torch.tensor(tokens_MK)), atol=1e-5)
    tempered_MV = torch.softmax(plain_MV / temperature, dim=-1).numpy()
    for position, drawn_K in enumerate(tokens_MK):
        shares_V = np.bincount(drawn_K, minlength=VOCABULARY) / draws
        # Five standard deviations of a share.
        bound_V = 5 * np.sqrt(tempered_MV[position] * (1 - tempered_MV[position]) / draws)
        assert (np.abs(shares_V - tempered_MV[position]) <= bound_V + 3 / draws).all()


def test_alternatives_of_a_seed_are_the_same_and_change_no_sample(executor: TorchExecutor) -> None:
    plain = request(PROMPT, max_tokens=6, seed=3, num_samples=2, stop_token_ids=ENDLESS)
    asking = replace(plain, prompt_alternatives=4)
    first, again = sample(executor, [asking])[0], sample(executor, [asking])[0]
    assert first.prompt_alternatives is not None
    assert again.prompt_alternatives is not None
    np.testing.assert_array_equal(first.prompt_alternatives[0], again.prompt_alternatives[0])
    assert tokens_of(first) == tokens_of(sample(executor, [plain])[0])


def test_greedy_alternatives_are_the_most_likely_tokens(executor: TorchExecutor) -> None:
    asking = replace(request(PROMPT, max_tokens=1, temperature=0.0), prompt_alternatives=2)
    (found,) = sample(executor, [asking])
    assert found.prompt_alternatives is not None
    likeliest_M = plain_logprobs(executor, None, PROMPT).argmax(dim=-1)
    np.testing.assert_array_equal(found.prompt_alternatives[0], np.stack([likeliest_M] * 2, 1))


def test_a_prompt_of_one_token_has_no_alternatives(executor: TorchExecutor) -> None:
    asking = replace(request([5], max_tokens=1), prompt_alternatives=3)
    (found,) = sample(executor, [asking])
    assert found.prompt_alternatives is not None
    assert found.prompt_alternatives[0].shape == (0, 3)


def test_targets_outside_the_vocabulary_are_refused(executor: TorchExecutor) -> None:
    asking = replace(request(PROMPT), target_prompt_tokens=(np.array([0]), np.array([VOCABULARY])))
    with pytest.raises(InvalidRequestError, match=f"token id {VOCABULARY}, outside"):
        executor.submit("bad", asking)
    assert executor.step() == []
