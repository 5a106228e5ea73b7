"""The endpoint's sampling options and samples, to the Tinker SDK's records and back."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import tinker

from art.endpoint.types import SampledTokens, SamplingOptions
from art.errors import EngineError
from art.tinker.token_completer import sampled_tokens, sampling_params


@pytest.mark.parametrize("stop", [(5, 6), ("a", "b"), ()])
def test_options_reach_the_wires_fields_of_the_same_meaning(stop: Sequence[Any]) -> None:
    options = SamplingOptions(
        max_tokens=7, temperature=0.5, top_p=0.9, top_k=5, seed=4, stop=stop, num_samples=3
    )
    assert sampling_params(options) == tinker.SamplingParams(
        max_tokens=7, temperature=0.5, top_p=0.9, top_k=5, seed=4, stop=list(stop)
    )


def sequence(logprobs: list[float] | None, **fields: Any) -> tinker.SampledSequence:
    return tinker.SampledSequence(
        "length",
        "0",
        tokens_np=np.array([1, 2], np.int32),
        logprobs_np=None if logprobs is None else np.array(logprobs, np.float32),
        **fields,
    )


def test_a_sample_keeps_its_tokens_and_logprobs() -> None:
    assert sampled_tokens(sequence([-0.5, -0.25])) == SampledTokens([1, 2], [-0.5, -0.25], "length")


def test_top_logprobs_are_kept() -> None:
    top = [[(1, -0.5), (3, -1.5)], None]
    found = sampled_tokens(sequence([-0.5, -0.25], _topk_logprobs_list=top))
    assert found.top_logprobs == top


@pytest.mark.parametrize(
    ("logprobs", "top", "message"),
    [
        (None, None, "without a logprob for each token"),
        ([-0.5], None, "without a logprob for each token"),
        ([-0.5, -0.25], [None], "top logprobs of 1 tokens for a sample of 2"),
    ],
)
def test_a_sample_whose_parts_differ_in_length_is_the_servers_error(
    logprobs: list[float] | None, top: list[Any] | None, message: str
) -> None:
    with pytest.raises(EngineError, match=message):
        sampled_tokens(sequence(logprobs, _topk_logprobs_list=top))
