"""Training and sampling at the same time, from two threads, on one executor."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from art.executors.torch.executor import TorchExecutor
from art.executors.torch.turns import Turns
from art.formats.adam import AdamParams
from tests.executors.torch_cases import (
    CROSS_ENTROPY,
    LORA,
    VOCABULARY,
    copies,
    datum,
    request,
    result,
    run_to_end,
    sample,
    tokens_of,
)

STEP = AdamParams(learning_rate=1e-3)


@contextmanager
def running(work: Callable[[], object]) -> Iterator[None]:
    """Do `work` over and over on a thread of its own; its failure is the test's."""
    failures: list[BaseException] = []
    over = threading.Event()

    def loop() -> None:
        try:
            while not over.is_set():
                work()
        except BaseException as error:
            failures.append(error)
            raise

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(60)
        assert not thread.is_alive()
    assert failures == []


def test_a_turn_goes_to_whoever_waits_longest() -> None:
    turns, order = Turns(), list[int]()

    def take(number: int) -> None:
        with turns.turn():
            order.append(number)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(8)]
    with turns.turn():
        for number, thread in enumerate(threads):
            thread.start()
            while len(turns._waiting) <= number:
                time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert order == list(range(8))


def test_a_thread_that_asks_again_at_once_does_not_starve_another() -> None:
    turns, taken = Turns(), list[str]()

    def greedy() -> None:
        with turns.turn():
            taken.append("greedy")
            time.sleep(0.002)

    with running(greedy):
        for _ in range(10):
            with turns.turn():
                taken.append("modest")
    between = "".join(name[0] for name in taken).split("m")
    # Asked for while the other held it, it is next: at most one more of the other's in between.
    assert max(len(stretch) for stretch in between[1:-1]) <= 2


def test_a_turn_that_fails_is_passed_on() -> None:
    turns = Turns()
    with pytest.raises(ValueError, match="fault"), turns.turn():
        raise ValueError("fault")
    with turns.turn():
        pass


def test_two_lanes_at_once_compute_what_each_computes_alone(
    executor: TorchExecutor, model: str, adapter: str
) -> None:
    data = [datum(range(10, 50), seed) for seed in range(3)]
    asked = [
        request(range(9), name, num_samples=2, max_tokens=20, seed=seed)
        for seed, name in enumerate((adapter, None, adapter))
    ]

    def train() -> list[dict[str, float]]:
        metrics = []
        for _ in range(6):
            metrics.append(
                executor.forward_backward(model, data, CROSS_ENTROPY, backward=True).metrics
            )
            metrics.append(executor.optim_step(model, STEP))
        return metrics

    start = copies(executor, model)
    alone = train(), [tokens_of(each) for each in sample(executor, asked)]
    after = copies(executor, model)
    executor._adapters.write(f"model {model}", start)
    executor._models[model].optimizer.reset()

    def sample_again() -> None:
        assert [tokens_of(each) for each in sample(executor, asked)] == alone[1]

    with running(sample_again):
        beside = train()
    assert beside == alone[0]
    trained = copies(executor, model)
    assert all(torch.equal(after[key], trained[key]) for key in after)


def test_adapters_come_and_go_while_the_other_lane_computes(
    executor: TorchExecutor, model: str, adapter: str, tmp_path: Path
) -> None:
    executor.save_weights(model, tmp_path, optimizer=False)
    asked = [request(range(9), adapter, num_samples=2, max_tokens=12, seed=1)]
    (expected,) = sample(executor, asked)

    def sample_with_a_new_adapter() -> None:
        executor.load_adapter("other", tmp_path)
        (found,) = sample(executor, [request(range(9), "other", max_tokens=12, seed=1)])
        assert tokens_of(found) == tokens_of(expected)[:1]
        assert tokens_of(sample(executor, asked)[0]) == tokens_of(expected)
        executor.unload_adapter("other")

    with running(sample_with_a_new_adapter):
        for _ in range(4):
            executor.create_model("new", LORA)
            executor.forward_backward("new", [datum(range(9))], CROSS_ENTROPY, backward=True)
            executor.optim_step("new", STEP)
            executor.unload_model("new")


def test_never_do_two_passes_compute_at_once(
    executor: TorchExecutor, model: str, adapter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Reentrant, since under a mode of torch (a default device, say) `grad` calls itself.
    inside, overlaps = threading.RLock(), list[str]()
    decode, grad = executor._language_model.decode, torch.autograd.grad

    def alone(compute: Callable[..., Any]) -> Callable[..., Any]:
        def computed(*arguments: Any, **options: Any) -> Any:
            if not inside.acquire(blocking=False):
                overlaps.append(threading.current_thread().name)
                return compute(*arguments, **options)
            try:
                return compute(*arguments, **options)
            finally:
                inside.release()

        return computed

    monkeypatch.setattr(executor._language_model, "decode", alone(decode))
    monkeypatch.setattr(torch.autograd, "grad", alone(grad))
    with running(lambda: sample(executor, [request(range(9), adapter, max_tokens=20)])):
        for _ in range(10):
            executor.forward_backward(model, [datum(range(40))], CROSS_ENTROPY, backward=True)
    assert overlaps == []


def test_an_optimizer_step_does_not_wait_for_a_pass(executor: TorchExecutor, model: str) -> None:
    executor.forward_backward(model, [datum(range(9))], CROSS_ENTROPY, backward=True)
    with executor._adapters.turn(None):
        executor.optim_step(model, STEP)


def test_a_training_pass_waits_for_one_token_of_a_long_completion_at_most(
    executor: TorchExecutor, model: str, adapter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[str] = []
    decode = executor._language_model.decode

    def noted(input_ids: torch.Tensor, *arguments: Any) -> torch.Tensor:
        passes.append(threading.current_thread().name)
        return decode(input_ids, *arguments)

    monkeypatch.setattr(executor._language_model, "decode", noted)
    executor.submit(
        "long", request(range(5), adapter, max_tokens=400, stop_token_ids=(VOCABULARY,))
    )
    here = threading.current_thread().name
    # Eight rows that share nothing, and a bound of 64 tokens a pass: eight passes.
    data = [datum(range(100 * n, 100 * n + 60)) for n in range(8)]
    waited: list[int] = []
    with running(executor.step):
        while len(passes) < 3:
            time.sleep(0.001)
        for _ in range(3):
            before = len(passes)
            executor.forward_backward(model, data, CROSS_ENTROPY, backward=True)
            # Before the optimizer's step, which takes no turn: the completion goes on meanwhile.
            during = passes[before:]
            waited.append(len(during) - during.count(here))
            assert during.count(here) == 8
            executor.optim_step(model, STEP)
        # The completion is still running: training did not wait for its end.
        assert executor._sampler._requests.keys() == {"long"}
    # One token between each two passes, and one more at either end.
    assert max(waited) <= 8 + 2
    # Nor did the completion wait for more than a pass: it went on between them.
    assert min(waited) >= 8 - 2
    (ended,) = run_to_end(executor)
    assert len(tokens_of(result(ended.outcome))[0]) == 400


def test_a_trained_adapter_says_what_it_says_alone_while_another_is_sampled(
    executor: TorchExecutor, model: str
) -> None:
    each = datum(range(20))
    alone = executor.forward_backward(model, [each], CROSS_ENTROPY, backward=False)
    executor.submit("base", request(range(5), max_tokens=3, stop_token_ids=(VOCABULARY,)))
    for _ in range(3):
        executor.step()
        found = executor.forward_backward(model, [each], CROSS_ENTROPY, backward=False)
        np.testing.assert_array_equal(found.outputs[0]["logprobs"], alone.outputs[0]["logprobs"])
