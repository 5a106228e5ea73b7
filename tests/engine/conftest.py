"""A small executor that really learns, for tests of what is around an executor."""

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from art.errors import InvalidRequestError, NotFoundError
from art.executors.types import (
    BaseModelInfo,
    Datum,
    ForwardBackwardResult,
    LoraConfig,
    LossFunction,
    SampledSequence,
    SampleRequest,
    SampleResult,
)
from art.formats.adam import AdamParams

VOCABULARY = 16


class UnigramExecutor:
    """A language model without context: one logit a token; plain gradient descent.

    ``calls`` lists what was asked of it, in order. While ``gate`` is clear, calls wait.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, object]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.threads: set[int] = set()
        self._logits: dict[str, np.ndarray] = {}
        self._gradients: dict[str, np.ndarray] = {}
        self._steps: dict[str, int] = {}
        self._loras: dict[str, LoraConfig] = {}
        self._samplers: dict[str, np.ndarray] = {}

    @property
    def base_model(self) -> BaseModelInfo:
        return BaseModelInfo(
            name="unigram",
            tokenizer_id="unigram",
            architecture="Unigram",
            max_context_length=64,
            eos_token_ids=(0,),
        )

    def _called(self, name: str, argument: object) -> None:
        self.threads.add(threading.get_ident())
        self.calls.append((name, argument))
        assert self.gate.wait(timeout=30)

    def create_model(self, model_id: str, lora: LoraConfig) -> None:
        self._called("create_model", model_id)
        self._logits[model_id] = np.zeros(VOCABULARY)
        self._gradients[model_id] = np.zeros(VOCABULARY)
        self._steps[model_id] = 0
        self._loras[model_id] = lora

    def unload_model(self, model_id: str) -> None:
        self._called("unload_model", model_id)
        for table in (self._logits, self._gradients, self._steps, self._loras):
            del table[model_id]

    def forward_backward(
        self, model_id: str, data: Sequence[Datum], loss: LossFunction, *, backward: bool
    ) -> ForwardBackwardResult:
        self._called("forward_backward", [int(datum.tokens[0]) for datum in data])
        if loss.name != "cross_entropy":
            raise InvalidRequestError(f"there is no loss {loss.name!r}")
        logprobs_V = _log_softmax(self._logits[model_id])
        outputs, total = [], 0.0
        for datum in data:
            targets = datum.loss_inputs["target_tokens"]
            weights = datum.loss_inputs.get("weights", np.ones(targets.shape, np.float32))
            outputs.append({"logprobs": logprobs_V[targets].astype(np.float32)})
            total -= float((logprobs_V[targets] * weights).sum())
            if backward:
                gradient = np.exp(logprobs_V) * weights.sum()
                np.subtract.at(gradient, targets, weights)
                self._gradients[model_id] += gradient
        return ForwardBackwardResult(outputs=outputs, metrics={"loss:sum": total})

    def optim_step(self, model_id: str, params: AdamParams) -> dict[str, float]:
        self._called("optim_step", params.learning_rate)
        norm = float(np.linalg.norm(self._gradients[model_id]))
        self._logits[model_id] -= params.learning_rate * self._gradients[model_id]
        self._gradients[model_id][:] = 0
        self._steps[model_id] += 1
        return {"grad_norm:mean": norm}

    def save_weights(self, model_id: str, folder: Path, *, optimizer: bool) -> None:
        self._called("save_weights", folder.name)
        lora = self._loras[model_id]
        tensors = {"logits": self._logits[model_id], "lora": np.array([lora.rank])}
        save_file(tensors, folder / "adapter_model.safetensors")
        if optimizer:
            steps = {"steps": np.array([self._steps[model_id]])}
            save_file(steps, folder / "optimizer.safetensors")

    def load_weights(self, model_id: str, folder: Path, *, optimizer: bool) -> None:
        self._called("load_weights", folder.name)
        self._logits[model_id] = load_file(folder / "adapter_model.safetensors")["logits"]
        if optimizer:
            steps = load_file(folder / "optimizer.safetensors")["steps"]
            self._steps[model_id] = int(steps[0])

    def lora_config_of(self, folder: Path) -> LoraConfig:
        rank = int(load_file(folder / "adapter_model.safetensors")["lora"][0])
        return LoraConfig(rank=rank, alpha=32.0)

    def load_sampler(self, sampler_id: str, folder: Path) -> None:
        self._called("load_sampler", sampler_id)
        if not folder.exists():
            raise NotFoundError(f"{folder.name} is gone")
        self._samplers[sampler_id] = load_file(folder / "adapter_model.safetensors")["logits"]

    def unload_sampler(self, sampler_id: str) -> None:
        self._called("unload_sampler", sampler_id)
        del self._samplers[sampler_id]

    def sample(self, requests: Sequence[SampleRequest]) -> list[SampleResult]:
        self._called("sample", len(requests))
        if any(request.prompt.max() >= VOCABULARY for request in requests):
            raise InvalidRequestError("a token is not in the vocabulary")
        return [self._sample_one(request) for request in requests]

    def _sample_one(self, request: SampleRequest) -> SampleResult:
        logits = np.zeros(VOCABULARY)
        if request.sampler_id is not None:
            logits = self._samplers[request.sampler_id]
        logprobs_V = _log_softmax(logits)
        sequences = []
        for index in range(request.num_samples):
            generator = np.random.default_rng([request.params.seed or 0, index])
            tokens = generator.choice(
                VOCABULARY, size=request.params.max_tokens or 4, p=np.exp(logprobs_V)
            )
            sequences.append(
                SampledSequence(
                    tokens=tokens.astype(np.int64),
                    logprobs=logprobs_V[tokens].astype(np.float32),
                    stop_reason="length",
                )
            )
        prompt_logprobs = logprobs_V[request.prompt].astype(np.float32)
        prompt_logprobs[0] = np.nan
        return SampleResult(
            sequences=sequences,
            prompt_logprobs=prompt_logprobs if request.prompt_logprobs else None,
        )


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


@pytest.fixture
def unigram() -> UnigramExecutor:
    return UnigramExecutor()
