"""Penalties, biases and min_p of the torch sampler, against plain computations.

Shapes: T tokens, V vocabulary.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
)

from art.errors import InvalidRequestError, MissingExtraError
from art.executors.torch.executor import TorchExecutor
from art.executors.torch.token_choice import choose_tokens
from art.executors.torch.token_controls import TokenControls
from art.executors.types import SampleRequest, SamplingParams
from art.formats.sampling_controls import MAX_LOGIT_BIASES, SamplingControls
from tests.executors.torch_cases import (
    CROSS_ENTROPY,
    VOCABULARY,
    next_token_datum,
    request,
    sample,
    tokens_of,
)

ENDLESS = (VOCABULARY,)
"""Stop tokens that no model samples."""
PROMPT = list(range(30, 50))
CONTROLS: dict[str, dict[str, Any]] = {
    "min_p": {"min_p": 0.3},
    "logit_bias": {"logit_bias": ((5, 9.0), (40, -100.0), (300, 2.5))},
    "frequency_penalty": {"frequency_penalty": 1.5},
    "presence_penalty": {"presence_penalty": 2.0},
    "repetition_penalty": {"repetition_penalty": 1.7},
    "all": {
        "min_p": 0.1,
        "logit_bias": ((5, 9.0), (40, -100.0)),
        "frequency_penalty": -0.5,
        "presence_penalty": 0.7,
        "repetition_penalty": 0.8,
    },
}


def controlled(prompt: Sequence[int], controls: SamplingControls, **params: Any) -> SampleRequest:
    return request(prompt, controls=controls, stop_token_ids=ENDLESS, **params)


def plain_logits(
    logits_V: torch.Tensor, prompt: Sequence[int], sampled: Sequence[int], c: SamplingControls
) -> torch.Tensor:
    """Change logits one token at a time, or by the processors of transformers."""
    ids_1T = torch.tensor([[*prompt, *sampled]])
    changed_1V = logits_V[None].clone()
    if c.repetition_penalty != 1:
        changed_1V = RepetitionPenaltyLogitsProcessor(c.repetition_penalty)(ids_1T, changed_1V)
    for token, count in Counter(sampled).items():
        changed_1V[0, token] -= c.frequency_penalty * count + c.presence_penalty
    if c.logit_bias:
        biases: list[list[list[int] | float]] = [[[token], bias] for token, bias in c.logit_bias]
        changed_1V = SequenceBiasLogitsProcessor(biases)(ids_1T, changed_1V)
    return changed_1V[0]


@pytest.mark.parametrize("case", CONTROLS)
def test_logits_change_as_in_the_plain_computation(case: str) -> None:
    controls = SamplingControls(**CONTROLS[case])
    generator = torch.Generator().manual_seed(1)
    prompt, sampled = [3, 5, 5, 300], [7, 5, 7, 7, 40]
    state = TokenControls(controls, np.array(prompt), None, torch.device("cpu"))
    for count in range(len(sampled) + 1):
        logits_V = torch.randn(400, generator=generator) * 3
        expected_V = plain_logits(logits_V, prompt, sampled[:count], controls)
        state.apply(logits_V)
        torch.testing.assert_close(logits_V, expected_V)
        if count < len(sampled):
            state.note(sampled[count])


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.7])
@pytest.mark.parametrize("min_p", [0.02, 0.3, 1.0])
def test_min_p_leaves_the_tokens_that_transformers_leaves(min_p: float, temperature: float) -> None:
    logits_V = torch.randn(50, generator=torch.Generator().manual_seed(2)) * 2
    kept_1V = MinPLogitsWarper(min_p)(torch.empty(0), logits_V[None] / temperature)  # type: ignore[arg-type]  # it reads no ids
    expected = set(torch.isfinite(kept_1V[0]).nonzero().flatten().tolist())
    params = SamplingParams(temperature=temperature, controls=SamplingControls(min_p=min_p))
    uniforms = np.linspace(0, 1, 4000, endpoint=False).tolist()
    drawn = choose_tokens(logits_V.expand(4000, -1), [params] * 4000, uniforms)
    assert set(drawn.tolist()) == expected
    probability_V = torch.softmax(kept_1V[0], -1)
    shares_V = np.bincount(drawn.numpy(), minlength=50) / 4000
    np.testing.assert_allclose(shares_V, probability_V.numpy(), atol=1e-3)


def test_a_number_that_is_rounded_up_to_one_draws_no_forbidden_token() -> None:
    logits_BV = torch.tensor([[0.0, 1.0, -torch.inf]])
    assert choose_tokens(logits_BV, [SamplingParams()], [1.0]).tolist() == [1]


@pytest.mark.parametrize("case", CONTROLS)
def test_greedy_samples_are_those_of_a_plain_loop(executor: TorchExecutor, case: str) -> None:
    controls = SamplingControls(**CONTROLS[case])
    (found,) = sample(executor, [controlled(PROMPT, controls, max_tokens=12, temperature=0.0)])
    sampled: list[int] = []
    for _ in range(12):
        with executor._adapters.turn(None), torch.no_grad():
            ids_1T = torch.tensor([[*PROMPT, *sampled]])
            logits_V = executor._language_model.model(ids_1T).logits[0, -1]
        sampled.append(int(plain_logits(logits_V, PROMPT, sampled, controls).argmax()))
    assert tokens_of(found) == [sampled]


def test_controls_change_what_is_sampled_and_not_its_logprob(
    executor: TorchExecutor, model: str, adapter: str
) -> None:
    params: dict[str, Any] = {"max_tokens": 12, "temperature": 0.8, "seed": 4}
    requests = [
        request(
            PROMPT,
            adapter,
            controls=SamplingControls(**fields),
            stop_token_ids=ENDLESS,
            **params,
        )
        for fields in CONTROLS.values()
    ]
    results = sample(executor, requests)
    tokens = [tokens_of(each)[0] for each in results]
    assert len({*map(tuple, tokens)}) > 1
    data = [next_token_datum(np.array([*PROMPT, *each])) for each in tokens]
    trained = executor.forward_backward(model, data, CROSS_ENTROPY, backward=False)
    for output, each in zip(trained.outputs, results, strict=True):
        (sequence,) = each.sequences
        np.testing.assert_allclose(output["logprobs"][-12:], sequence.logprobs, atol=1e-5)


def test_controls_change_no_neighbour(executor: TorchExecutor) -> None:
    # A low temperature, since in other batches logits are rounded otherwise.
    params: dict[str, Any] = {"max_tokens": 10, "temperature": 0.3, "seed": 5}
    neutral = controlled(PROMPT, SamplingControls(), num_samples=2, **params)
    (alone,) = sample(executor, [neutral])
    crowd = [
        controlled(PROMPT, SamplingControls(**fields), **params) for fields in CONTROLS.values()
    ]
    among = sample(executor, [*crowd[:3], neutral, *crowd[3:]])[3]
    assert tokens_of(among) == tokens_of(alone)
    np.testing.assert_allclose(among.sequences[0].logprobs, alone.sequences[0].logprobs, atol=1e-5)


def test_a_banned_token_is_never_sampled_and_a_favoured_one_always(
    executor: TorchExecutor,
) -> None:
    (free,) = sample(executor, [controlled(PROMPT, SamplingControls(), max_tokens=1, seed=1)])
    ((first,),) = tokens_of(free)
    ban = SamplingControls(logit_bias=((first, -100.0),))
    favour = SamplingControls(logit_bias=((77, 100.0),))
    banned, favoured = sample(
        executor,
        [
            controlled(PROMPT, ban, max_tokens=5, num_samples=20, seed=1),
            controlled(PROMPT, favour, max_tokens=5, num_samples=3),
        ],
    )
    assert all(first not in tokens for tokens in tokens_of(banned))
    assert tokens_of(favoured) == [[77] * 5] * 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"min_p": 1.5}, "min_p must be from 0 to 1, not 1.5"),
        ({"min_p": float("nan")}, "min_p must be from 0 to 1, not nan"),
        ({"frequency_penalty": 2.5}, "frequency_penalty must be from -2 to 2"),
        ({"presence_penalty": float("-inf")}, "presence_penalty must be from -2 to 2"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be from 0.01 to 100"),
        ({"logit_bias": ((1, 101.0),)}, "logit_bias of token 1 must be from -100 to 100"),
        ({"logit_bias": ((-1, 1.0),)}, "token id -1, which is negative"),
        ({"logit_bias": ((VOCABULARY, 1.0),)}, f"outside the vocabulary of {VOCABULARY}"),
        ({"logit_bias": ((1, 1.0), (1, 2.0))}, "names a token twice"),
        (
            {"logit_bias": tuple((token, 1.0) for token in range(MAX_LOGIT_BIASES + 1))},
            f"{MAX_LOGIT_BIASES + 1} entries",
        ),
        ({"grammar": "x" * (1 << 18) + "y"}, "the grammar has 262145 characters"),
        ({"grammar": "start: \ud800"}, "lone surrogate"),
    ],
)
def test_controls_that_cannot_be_used_are_refused_by_name(
    executor: TorchExecutor, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message) as caught:
        executor.submit("bad", controlled(PROMPT, SamplingControls(**fields)))
    assert len(str(caught.value)) < 2000
    assert executor.step() == []


def test_without_the_grammar_library_a_grammar_is_refused_with_the_extra(
    executor: TorchExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    assert executor.sampling_controls == set(SamplingControls.__dataclass_fields__) - {"grammar"}
    with pytest.raises(MissingExtraError, match=r"'llguidance'.*art-rl\[local\]"):
        executor.submit("bad", controlled(PROMPT, SamplingControls(grammar='start: "unseen"')))
    assert executor.step() == []
