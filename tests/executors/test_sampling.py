"""Sampling with a tiny model, step by step, against training and transformers."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from art.errors import ContextLengthError, EngineError, InvalidRequestError, NotFoundError
from art.executors.torch.executor import TorchExecutor
from art.executors.types import Datum, SampleResult
from art.formats.adam import AdamParams
from tests.executors.torch_cases import (
    CROSS_ENTROPY,
    VOCABULARY,
    datum,
    next_token_datum,
    request,
    result,
    run_to_end,
    sample,
    tokens_of,
)

ENDLESS = (VOCABULARY,)
"""Stop tokens that no model samples."""


@pytest.fixture
def passes(executor: TorchExecutor, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the passes of the model, rows and tokens a row, as they are computed."""
    shapes: list[tuple[int, ...]] = []
    decode = executor._language_model.decode

    def counted(input_ids: torch.Tensor, *arguments: Any) -> torch.Tensor:
        shapes.append(tuple(input_ids.shape))
        return decode(input_ids, *arguments)

    monkeypatch.setattr(executor._language_model, "decode", counted)
    return shapes


def test_sampled_logprobs_are_those_of_training(
    executor: TorchExecutor, model: str, adapter: str
) -> None:
    prompts: list[Sequence[int]] = [range(3), range(40), range(17), [5], range(40, 90)]
    params: dict[str, Any] = {"max_tokens": 12, "temperature": 0.7, "top_k": 50, "seed": 1}
    results = sample(executor, [request(prompt, adapter, **params) for prompt in prompts])
    data, sampled = [], []
    for prompt, each in zip(prompts, results, strict=True):
        (sequence,) = each.sequences
        data.append(next_token_datum(np.concatenate([np.asarray(prompt), sequence.tokens])))
        sampled.append(sequence.logprobs)
    trained = executor.forward_backward(model, data, CROSS_ENTROPY, backward=False)
    for output, logprobs in zip(trained.outputs, sampled, strict=True):
        np.testing.assert_allclose(output["logprobs"][-len(logprobs) :], logprobs, atol=1e-5)


def test_training_does_not_change_an_adapter_that_is_loaded(
    executor: TorchExecutor, model: str, adapter: str
) -> None:
    greedy = request(range(9), adapter, max_tokens=8, temperature=0.0)
    (before,) = sample(executor, [greedy])
    executor.forward_backward(model, [datum(range(9))], CROSS_ENTROPY, backward=True)
    executor.optim_step(model, AdamParams(learning_rate=1.0))
    (after,) = sample(executor, [greedy])
    np.testing.assert_array_equal(before.sequences[0].logprobs, after.sequences[0].logprobs)


def test_greedy_sampling_is_that_of_transformers(executor: TorchExecutor) -> None:
    prompts = [list(range(30, 30 + n)) for n in (4, 11, 2)]
    results = sample(
        executor, [request(prompt, max_tokens=16, temperature=0.0) for prompt in prompts]
    )
    for prompt, each in zip(prompts, results, strict=True):
        with executor._adapters.turn(None):
            plain = executor._language_model.model.generate(
                torch.tensor([prompt]), max_new_tokens=16, do_sample=False
            )[0, len(prompt) :]
        assert tokens_of(each) == [plain.tolist()]


def test_a_seed_gives_the_same_tokens_in_any_company(executor: TorchExecutor, adapter: str) -> None:
    mine = request(range(20), adapter, num_samples=3, max_tokens=10, seed=5)
    (alone,) = sample(executor, [mine])
    assert len({tuple(tokens) for tokens in tokens_of(alone)}) == 3
    crowd = [
        request(range(7), adapter, num_samples=4, max_tokens=10, seed=1),
        mine,
        request(range(60), None, num_samples=2, max_tokens=10, seed=2),
    ]
    assert tokens_of(sample(executor, crowd)[1]) == tokens_of(alone)
    (one,) = sample(executor, [replace(mine, num_samples=1)])
    assert tokens_of(one) == tokens_of(alone)[:1]


def test_a_seed_gives_the_same_tokens_whatever_joins_leaves_and_trains_meanwhile(
    executor: TorchExecutor, model: str, adapter: str
) -> None:
    # A low temperature, since in other batches logits are rounded otherwise: a random number that
    # falls between two tokens by as little is then less likely.
    params: dict[str, Any] = {"temperature": 0.3, "seed": 5, "stop_token_ids": ENDLESS}
    mine = request(range(20), adapter, num_samples=2, max_tokens=24, **params)
    (alone,) = sample(executor, [mine])
    executor.submit("mine", mine)
    executor.submit("cancelled", request(range(30), adapter, max_tokens=90))
    ended = []
    for step in range(12):
        executor.submit(f"other {step}", request(range(step + 1), None, max_tokens=2))
        executor.forward_backward(model, [datum(range(8))], CROSS_ENTROPY, backward=True)
        if step == 5:
            executor.cancel("cancelled")
        ended += executor.step()
    outcomes = {each.request_id: each.outcome for each in [*ended, *run_to_end(executor)]}
    assert tokens_of(result(outcomes["mine"])) == tokens_of(alone)
    assert outcomes.keys() == {"mine", *(f"other {step}" for step in range(12))}


def test_without_a_seed_samples_differ(executor: TorchExecutor) -> None:
    one, other = sample(executor, [request(range(20), max_tokens=10)] * 2)
    assert tokens_of(one) != tokens_of(other)


def _free(executor: TorchExecutor) -> SampleResult:
    (found,) = sample(executor, [request(range(9), max_tokens=12, seed=3)])
    return found


def test_a_sample_ends_at_its_length(executor: TorchExecutor) -> None:
    (sequence,) = _free(executor).sequences
    assert (len(sequence.tokens), sequence.stop_reason) == (12, "length")


def test_a_stop_token_ends_a_sample_and_is_kept(executor: TorchExecutor) -> None:
    (tokens,) = tokens_of(_free(executor))
    stopping = request(range(9), max_tokens=12, seed=3, stop_token_ids=(tokens[5],))
    (sequence,) = sample(executor, [stopping])[0].sequences
    assert sequence.tokens.tolist() == tokens[: tokens.index(tokens[5]) + 1]
    assert sequence.stop_reason == "stop"


def test_a_stop_string_ends_a_sample_with_the_token_that_completes_it(
    executor: TorchExecutor,
) -> None:
    tokenizer = executor._language_model.tokenizer
    (tokens,) = tokens_of(_free(executor))
    string = tokenizer.decode(tokens[3:5])
    stopping = request(range(9), max_tokens=12, seed=3, stop_strings=(string,))
    (sequence,) = sample(executor, [stopping])[0].sequences
    assert sequence.stop_reason == "stop"
    assert string in tokenizer.decode(sequence.tokens.tolist())
    assert string not in tokenizer.decode(sequence.tokens.tolist()[:-1])


def test_without_a_length_a_sample_ends_with_the_context(executor: TorchExecutor) -> None:
    (found,) = sample(executor, [request(range(500), seed=3, stop_token_ids=ENDLESS)])
    assert len(found.sequences[0].tokens) == 12


def test_prompt_logprobs_and_the_most_likely_tokens_are_those_of_training(
    executor: TorchExecutor, adapter: str, model: str
) -> None:
    prompt = np.arange(20, 45)
    asking = replace(
        request(prompt, adapter, max_tokens=1), prompt_logprobs=True, topk_prompt_logprobs=3
    )
    full, short = sample(executor, [asking, replace(asking, prompt=prompt[:1])])
    plain = executor.forward_backward(
        model, [next_token_datum(prompt)], CROSS_ENTROPY, backward=False
    )
    assert full.prompt_logprobs is not None
    assert np.isnan(full.prompt_logprobs[0])
    np.testing.assert_allclose(full.prompt_logprobs[1:], plain.outputs[0]["logprobs"], atol=1e-5)
    assert full.topk_prompt_logprobs is not None
    ids, logprobs = full.topk_prompt_logprobs
    assert ids[0].tolist() == [-1, -1, -1]
    assert np.isnan(logprobs[0]).all()
    top = [Datum(tokens=prompt[:-1], loss_inputs={"target_tokens": ids[1:, k]}) for k in range(3)]
    plain = executor.forward_backward(model, top, CROSS_ENTROPY, backward=False)
    for k in range(3):
        np.testing.assert_allclose(logprobs[1:, k], plain.outputs[k]["logprobs"], atol=1e-5)
    assert (np.diff(logprobs[1:]) <= 0).all()
    assert short.prompt_logprobs is not None
    assert short.topk_prompt_logprobs is not None
    assert short.prompt_logprobs.shape == (1,)
    assert short.topk_prompt_logprobs[0].shape == (1, 3)


def test_a_small_cache_changes_nothing(tiny_model: Path, executor: TorchExecutor) -> None:
    bounded = TorchExecutor(tiny_model, device="cpu", max_tokens_per_pass=64, max_cached_tokens=100)
    requests = [request(range(n), max_tokens=70, seed=2) for n in (30, 5, 30, 70, 12)]
    few, many = sample(bounded, requests), sample(executor, requests)
    assert [tokens_of(each) for each in few] == [tokens_of(each) for each in many]


def test_a_request_for_many_samples_is_computed_in_parts_of_bounded_size(
    executor: TorchExecutor, passes: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor._sampler, "_max_rows", 8)
    (result,) = sample(
        executor,
        [request(range(4), num_samples=50, max_tokens=3, stop_token_ids=ENDLESS)],
    )
    assert [len(sequence.tokens) for sequence in result.sequences] == [3] * 50
    assert max(rows for rows, _ in passes) == 8


def test_requests_of_one_adapter_are_one_batch_and_share_their_prompt(
    executor: TorchExecutor, passes: list[tuple[int, ...]]
) -> None:
    results = sample(
        executor, [request(range(10), max_tokens=5, stop_token_ids=ENDLESS) for _ in range(64)]
    )
    assert passes == [(1, 10)] + [(64, 1)] * 4
    assert len({tuple(tokens_of(each)[0]) for each in results}) > 1


def test_each_request_is_handed_over_by_the_step_that_ends_it(executor: TorchExecutor) -> None:
    for length in (3, 1, 2):
        executor.submit(str(length), request(range(5), max_tokens=length, stop_token_ids=ENDLESS))
    handed = [[each.request_id for each in executor.step()] for _ in range(4)]
    assert handed == [["1"], ["2"], ["3"], []]


def test_a_short_request_does_not_wait_for_a_long_one_that_began_before_it(
    executor: TorchExecutor,
) -> None:
    executor.submit("long", request(range(5), max_tokens=300, stop_token_ids=ENDLESS))
    executor.step()
    executor.submit("short", request(range(5), max_tokens=2, stop_token_ids=ENDLESS))
    assert executor.step() == []
    assert [each.request_id for each in executor.step()] == ["short"]
    executor.cancel("long")


def test_requests_that_come_one_by_one_all_run_in_few_passes(
    executor: TorchExecutor, adapter: str, passes: list[tuple[int, ...]]
) -> None:
    params: dict[str, Any] = {"temperature": 0.3, "max_tokens": 16, "stop_token_ids": ENDLESS}
    requests = [request(range(5 * n, 9 * n + 1), adapter, seed=n, **params) for n in range(9)]
    alone = [tokens_of(sample(executor, [each])[0]) for each in requests]
    handed = []
    for number, each in enumerate(requests):
        executor.submit(str(number), each)
        passes.clear()
        handed += executor.step()
        # The new one's prompt, and a token of each that came before it.
        assert len(passes) <= 4
        assert sum(rows for rows, _ in passes) == number + 1
    handed += run_to_end(executor)
    assert [each.request_id for each in handed] == [str(number) for number in range(9)]
    assert [tokens_of(result(each.outcome)) for each in handed] == alone


def test_requests_that_find_no_room_wait_and_join_the_next_batch(
    executor: TorchExecutor, tiny_model: Path
) -> None:
    bounded = TorchExecutor(tiny_model, device="cpu", max_cached_tokens=20)
    for number in range(4):
        bounded.submit(str(number), request(range(5), max_tokens=5, seed=1, stop_token_ids=ENDLESS))
    handed = [[each.request_id for each in bounded.step()] for _ in range(10)]
    assert [ids for ids in handed if ids] == [["0", "1"], ["2", "3"]]


@pytest.mark.parametrize("steps", [0, 3])
def test_a_cancelled_request_costs_nothing_and_is_not_handed_over(
    executor: TorchExecutor, passes: list[tuple[int, ...]], steps: int
) -> None:
    executor.submit("gone", request(range(5), max_tokens=50, num_samples=6))
    executor.submit("kept", request(range(5), max_tokens=8, stop_token_ids=ENDLESS))
    for _ in range(steps):
        assert executor.step() == []
    executor.cancel("gone")
    passes.clear()
    assert [each.request_id for each in run_to_end(executor)] == ["kept"]
    assert {rows for rows, _ in passes} == {1}


def test_cancelling_the_last_request_frees_its_batch(
    executor: TorchExecutor, passes: list[tuple[int, ...]]
) -> None:
    executor.submit("gone", request(range(5), max_tokens=50))
    executor.step()
    executor.cancel("gone")
    executor.cancel("gone")
    executor.cancel("never submitted")
    passes.clear()
    assert executor.step() == []
    assert passes == []
    assert executor._sampler._batches == []


def test_a_failure_of_one_request_is_its_own_outcome(
    executor: TorchExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fault(Exception):
        """Nothing that this code knows."""

    decode: Callable[..., str] = executor._language_model.tokenizer.decode

    def faulty(tokens: list[int]) -> str:
        if len(tokens) == 3:
            raise Fault("cannot decode")
        return decode(tokens)

    monkeypatch.setattr(executor._language_model.tokenizer, "decode", faulty)
    executor.submit(
        "faulty", request(range(5), num_samples=2, max_tokens=6, stop_strings=("no such text",))
    )
    executor.submit("fine", request(range(5), max_tokens=6, stop_token_ids=ENDLESS))
    first, second = run_to_end(executor)
    assert (first.request_id, second.request_id) == ("faulty", "fine")
    assert isinstance(first.outcome, Fault)
    assert len(tokens_of(result(second.outcome))[0]) == 6


@pytest.mark.parametrize("at", ["prompt", "token"])
def test_a_failed_pass_fails_the_requests_of_its_batch_and_no_other(
    executor: TorchExecutor, adapter: str, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    executor.submit("fine", request(range(5), max_tokens=6, stop_token_ids=ENDLESS))
    executor.step()
    executor.submit("a", request(range(7), adapter, max_tokens=6, stop_token_ids=ENDLESS))
    executor.submit("b", request(range(9), adapter, max_tokens=6, num_samples=2))
    if at == "token":
        executor.step()
    decode = executor._language_model.decode

    def out_of_memory(input_ids: torch.Tensor, *arguments: Any) -> torch.Tensor:
        if input_ids.numel() > 1:  # the other batch has one row
            raise torch.OutOfMemoryError("out of memory")
        return decode(input_ids, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(executor._language_model, "decode", out_of_memory)
        failed = executor.step()
    assert [each.request_id for each in failed] == ["a", "b"]
    for each in failed:
        assert isinstance(each.outcome, EngineError)
        assert isinstance(each.outcome.__cause__, torch.OutOfMemoryError)
    assert len(executor._sampler._batches) == 1
    assert [each.request_id for each in run_to_end(executor)] == ["fine"]


def test_with_nothing_to_do_a_step_returns_at_once(executor: TorchExecutor) -> None:
    assert executor.step() == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 0),
        ("temperature", -1.0),
        ("temperature", float("nan")),
        ("top_p", 0.0),
        ("top_k", 0),
        ("seed", -1),
        ("stop_strings", ("",)),
        ("stop_strings", ("\udc80",)),
    ],
)
def test_parameters_that_cannot_be_used_are_refused(
    executor: TorchExecutor, field: str, value: object
) -> None:
    params: dict[str, Any] = {field: value}
    with pytest.raises(InvalidRequestError, match=field.replace("_strings", " strings")):
        executor.submit("bad", request(range(3), **params))
    assert executor.step() == []


def test_requests_that_cannot_be_answered_are_refused(executor: TorchExecutor) -> None:
    with pytest.raises(NotFoundError, match="adapter 'nobody'"):
        executor.submit("a", request(range(3), "nobody"))
    with pytest.raises(ContextLengthError, match="no room"):
        executor.submit("a", request(range(512), max_tokens=1))
    with pytest.raises(InvalidRequestError, match="token id 49152"):
        executor.submit("a", request([VOCABULARY]))
    executor.submit("a", request(range(3), max_tokens=1))
    with pytest.raises(InvalidRequestError, match="'a' already"):
        executor.submit("a", request(range(3)))
    run_to_end(executor)
