"""Data, requests and the plain computation that the tests of the torch executor share.

Shapes: T tokens of a datum, V vocabulary.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from art.executors.torch.executor import TorchExecutor
from art.executors.types import (
    Datum,
    EndedRequest,
    LoraConfig,
    LossFunction,
    SampleRequest,
    SampleResult,
    SamplingParams,
)
from art.formats.adam import AdamParams

VOCABULARY = 49152
LORA = LoraConfig(rank=4, alpha=8, seed=7)
CROSS_ENTROPY = LossFunction(name="cross_entropy")
STEP = AdamParams(learning_rate=1e-2, eps=1e-8)

_numbers = itertools.count()


def parameters(executor: TorchExecutor, model: str) -> dict[str, torch.nn.Parameter]:
    return executor._adapters.parameters(f"model {model}")


def copies(executor: TorchExecutor, model: str) -> dict[str, torch.Tensor]:
    return {key: p.detach().clone() for key, p in parameters(executor, model).items()}


def unchanged(executor: TorchExecutor, model: str, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(p, before[key]) for key, p in parameters(executor, model).items())


def gradients(executor: TorchExecutor, model: str) -> dict[str, torch.Tensor]:
    found = {}
    for key, parameter in parameters(executor, model).items():
        assert parameter.grad is not None
        found[key] = parameter.grad.clone()
    return found


def clear_gradients(executor: TorchExecutor, model: str) -> None:
    executor._models[model].optimizer.clear()


def randomise(executor: TorchExecutor, model: str, scale: float = 0.1) -> None:
    """Make B other than zero, so that the adapter changes what the model says."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in parameters(executor, model).values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)


def datum(tokens: Iterable[int], seed: int = 0, **inputs: npt.NDArray[Any]) -> Datum:
    """A datum for cross-entropy; three in ten of its weights are zero."""
    rng = np.random.default_rng(seed)
    ids = np.array(list(tokens), np.int64)
    targets = np.append(ids[1:], rng.integers(0, VOCABULARY))
    weights = rng.normal(size=len(ids)).astype(np.float32) * (rng.random(len(ids)) < 0.7)
    return Datum(tokens=ids, loss_inputs={"target_tokens": targets, "weights": weights, **inputs})


def next_token_datum(tokens: npt.NDArray[np.int64]) -> Datum:
    """A datum whose outputs are the logprob of each token after the first."""
    return Datum(tokens=tokens[:-1], loss_inputs={"target_tokens": tokens[1:]})


def plain_logprobs(executor: TorchExecutor, adapter: str | None, datum: Datum) -> torch.Tensor:
    """One sequence at a time, all logits, through the model's own forward."""
    tokens = torch.tensor(datum.tokens)[None]
    with executor._adapters.turn(adapter):
        model = executor._language_model.model
        logits_TV = model(input_ids=tokens, use_cache=False).logits[0]
    logprobs_TV = torch.log_softmax(logits_TV, -1)
    targets = torch.tensor(datum.loss_inputs["target_tokens"])
    return logprobs_TV.gather(1, targets.reshape(len(logits_TV), -1)).reshape(targets.shape)


def request(
    prompt: Iterable[int], adapter: str | None = None, *, num_samples: int = 1, **params: Any
) -> SampleRequest:
    return SampleRequest(
        adapter_id=adapter,
        prompt=np.array(list(prompt), np.int64),
        num_samples=num_samples,
        params=SamplingParams(**params),
    )


def run_to_end(executor: TorchExecutor) -> list[EndedRequest]:
    """Step until nothing runs; what ended, in that order."""
    ended: list[EndedRequest] = []
    while executor._sampler._requests:
        ended += executor.step()
    assert executor.step() == []
    return ended


def sample(executor: TorchExecutor, requests: Sequence[SampleRequest]) -> list[SampleResult]:
    """Answer requests that are submitted together."""
    ids = [str(next(_numbers)) for _ in requests]
    for request_id, each in zip(ids, requests, strict=True):
        executor.submit(request_id, each)
    outcomes = {each.request_id: each.outcome for each in run_to_end(executor)}
    return [result(outcomes[request_id]) for request_id in ids]


def result(outcome: SampleResult | Exception) -> SampleResult:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def tokens_of(result: SampleResult) -> list[list[int]]:
    return [sequence.tokens.tolist() for sequence in result.sequences]
