"""Latency of a training step while a long completion runs: ``python benchmarks/step_latency.py``.

One torch executor, called as the engine calls it: training on one thread, sampling on another.
Rounds alternate between training alone, sampling alone and both, so only ratios mean anything.
"""

import argparse
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from art.executors.base_models import resolve_base_model
from art.executors.torch.executor import TorchExecutor
from art.executors.torch.turns import Turns
from art.executors.types import Datum, LoraConfig, LossFunction, SampleRequest, SamplingParams
from art.formats.adam import AdamParams

LOSS = LossFunction(name="cross_entropy")
PROMPT_TOKENS = 32


class Completion:
    """A completion that a thread advances while it is told to."""

    def __init__(self, executor: TorchExecutor, adapter_id: str, tokens: int) -> None:
        never = (executor._language_model.vocab_size,)
        request = SampleRequest(
            adapter_id=adapter_id,
            prompt=np.arange(PROMPT_TOKENS),
            num_samples=1,
            params=SamplingParams(max_tokens=tokens, stop_token_ids=never),
        )
        self.tokens = 0
        self.has_ended = False
        self._executor = executor
        self._go, self._over = threading.Event(), threading.Event()
        self._paused = threading.Event()
        executor.submit("completion", request)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def __enter__(self) -> None:
        self._paused.clear()
        self._go.set()

    def __exit__(self, *_: object) -> None:
        self._go.clear()
        self._paused.wait()

    def close(self) -> None:
        """Give the rest of it up."""
        self._over.set()
        self._go.set()
        self._thread.join()
        self._executor.cancel("completion")

    def _run(self) -> None:
        while not self._over.is_set():
            if not self._go.is_set():
                self._paused.set()
                self._go.wait()
                continue
            self.has_ended = self.has_ended or bool(self._executor.step())
            self.tokens += 1


def train(executor: TorchExecutor, data: list[Datum]) -> float:
    """Wall time of `forward_backward` and `optim_step`."""
    started = time.perf_counter()
    executor.forward_backward("model", data, LOSS, backward=True)
    executor.optim_step("model", AdamParams(learning_rate=1e-5))
    return time.perf_counter() - started


def switch_seconds(executor: TorchExecutor, times: int = 50) -> float:
    """Wall time of making another adapter the active one."""
    started = time.perf_counter()
    for _ in range(times):
        for adapter in ("model model", "sampled adapter"):
            with executor._adapters.turn(adapter):
                pass
    return (time.perf_counter() - started) / (2 * times)


def prepare(options: argparse.Namespace) -> tuple[TorchExecutor, list[Datum]]:
    """Load a model with an adapter that is trained and one that is sampled from."""
    executor = TorchExecutor(
        resolve_base_model(options.base_model), max_tokens_per_pass=options.max_tokens_per_pass
    )
    executor.create_model("model", LoraConfig(rank=8, alpha=16, seed=0))
    with tempfile.TemporaryDirectory() as folder:
        executor.save_weights("model", Path(folder), optimizer=False)
        executor.load_adapter("adapter", Path(folder))
    tokens = np.random.default_rng(0).integers(
        0, executor._language_model.vocab_size, (options.sequences, options.length + 1)
    )
    data = [Datum(tokens=row[:-1], loss_inputs={"target_tokens": row[1:]}) for row in tokens]
    return executor, data


class TimedTurns(Turns):
    """Turns that add up how long each thread waited for its own."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: defaultdict[int, float] = defaultdict(float)

    def _take(self) -> None:
        started = time.perf_counter()
        super()._take()
        self.waited[threading.get_ident()] += time.perf_counter() - started


@dataclass
class Round:
    """One round: seconds, and the tokens of the completion that came in them."""

    step_alone: float
    token_alone: float
    step_beside: float
    waited: float
    tokens_beside: int


def measure(
    executor: TorchExecutor, data: list[Datum], completion: Completion, turns: TimedTurns
) -> Round:
    """Train alone, sample alone for as long, then do both."""
    step_alone = train(executor, data)
    started, before = time.perf_counter(), completion.tokens
    with completion:
        time.sleep(step_alone)
    token_alone = (time.perf_counter() - started) / max(1, completion.tokens - before)
    turns.waited.clear()
    before = completion.tokens
    with completion:
        step_beside = train(executor, data)
        tokens_beside = completion.tokens - before
    return Round(
        step_alone=step_alone,
        token_alone=token_alone,
        step_beside=step_beside,
        waited=turns.waited[threading.get_ident()],
        tokens_beside=tokens_beside,
    )


def main(options: argparse.Namespace) -> None:
    """Measure and print the ratios."""
    executor, data = prepare(options)
    turns = executor._adapters._turns = TimedTurns()
    passes = len(executor._language_model.passes([datum.tokens for datum in data]))
    room = executor.base_model.max_context_length - PROMPT_TOKENS
    completion = Completion(executor, "adapter", min(options.completion_tokens, room))
    with completion:
        train(executor, data)
    rounds = [measure(executor, data, completion, turns) for _ in range(options.rounds)]
    assert not completion.has_ended, "the completion is too short for so many rounds"
    completion.close()
    report(rounds, passes)
    print(
        f"the completion had {completion.tokens} of {options.completion_tokens} tokens by the end"
    )
    print(f"switching adapters: {1e3 * switch_seconds(executor):.2f} ms")


def report(rounds: list[Round], passes: int) -> None:
    """Print medians and their ratios."""
    alone = statistics.median(each.step_alone for each in rounds)
    beside = statistics.median(each.step_beside for each in rounds)
    waited = statistics.median(each.waited for each in rounds)
    token = statistics.median(each.token_alone for each in rounds)
    tokens = statistics.median(each.tokens_beside for each in rounds)
    print(f"a training step of {passes} pass(es), alone: {alone:.3f} s")
    print(f"beside a completion: {beside:.3f} s, ratio {beside / alone:.2f}")
    # On a machine that others use, this ratio is the steadier: both parts are of the same step.
    print(f"waiting for turns: {waited:.3f} s, ratio {beside / (beside - waited):.2f}")
    print(f"which is {waited / token / passes:.1f} tokens a pass")
    print(f"a token of the completion, alone: {token:.3f} s")
    print(f"beside training: {tokens:.0f} tokens a step, of {beside / token:.0f} without it")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        epilog="example: python benchmarks/step_latency.py --rounds 5 --sequences 16",
    )
    parser.add_argument("--base-model", default="HuggingFaceTB/SmolLM2-135M-Instruct")
    parser.add_argument("--completion-tokens", type=int, default=2000)
    parser.add_argument("--sequences", type=int, default=4)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--max-tokens-per-pass", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    main(parser.parse_args())
