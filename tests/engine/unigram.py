"""A small executor that really learns, for tests of what is around an executor."""

import threading
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from art.errors import InvalidRequestError, NotFoundError
from art.executors.types import (
    BaseModelInfo,
    Datum,
    EndedRequest,
    ForwardBackwardResult,
    LoraConfig,
    LossFunction,
    SampledSequence,
    SampleRequest,
    SampleResult,
)
from art.formats.adam import AdamParams

VOCABULARY = 16
LONG = 10_000

Logits: TypeAlias = npt.NDArray[np.float64]


class UnigramExecutor:
    """A language model without context: one logit a token; plain gradient descent.

    A sampling request ends with the step that follows its submission, but one for ``LONG`` tokens
    or more, which goes on until it is cancelled or :attr:`ending` is set.

    Attributes:
        calls: The calls in order, each with an argument that tells it from others.
        gate: While it is clear, training calls and steps wait.
        ending: While it is clear, long requests go on.
        threads: The names of the threads that called, by protocol.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, object]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.ending = threading.Event()
        self.threads: dict[str, set[str]] = defaultdict(set)
        self._logits: dict[str, Logits] = {}
        self._gradients: dict[str, Logits] = {}
        self._steps: dict[str, int] = {}
        self._loras: dict[str, LoraConfig] = {}
        self._adapters: dict[str, Logits] = {}
        self._requests: dict[str, SampleRequest] = {}

    @property
    def base_model(self) -> BaseModelInfo:
        return BaseModelInfo(
            name="unigram",
            tokenizer_id="unigram",
            architecture="Unigram",
            max_context_length=64,
            eos_token_ids=(0,),
        )

    @property
    def sampling_controls(self) -> frozenset[str]:
        return frozenset()

    @property
    def sizes_of_steps(self) -> list[int]:
        """How many requests each step that ended any had."""
        return [size for name, size in self.calls if name == "step" and isinstance(size, int)]

    def create_model(self, model_id: str, lora: LoraConfig) -> None:
        self._training("create_model", model_id)
        self._logits[model_id] = np.zeros(VOCABULARY)
        self._gradients[model_id] = np.zeros(VOCABULARY)
        self._steps[model_id] = 0
        self._loras[model_id] = lora

    def unload_model(self, model_id: str) -> None:
        self._training("unload_model", model_id)
        for table in (self._logits, self._gradients, self._steps, self._loras):
            del table[model_id]

    def forward_backward(
        self, model_id: str, data: Sequence[Datum], loss: LossFunction, *, backward: bool
    ) -> ForwardBackwardResult:
        self._training("forward_backward", [int(datum.tokens[0]) for datum in data])
        if loss.name != "cross_entropy":
            raise InvalidRequestError(f"there is no loss {loss.name!r}")
        logprobs_V = _log_softmax(self._logits[model_id])
        outputs, total = [], 0.0
        for datum in data:
            targets = datum.loss_inputs["target_tokens"].astype(np.int64)
            weights = datum.loss_inputs.get("weights", np.ones(targets.shape)).astype(np.float64)
            outputs.append({"logprobs": logprobs_V[targets].astype(np.float32)})
            total -= float((logprobs_V[targets] * weights).sum())
            if backward:
                gradient = np.exp(logprobs_V) * weights.sum()
                np.subtract.at(gradient, targets, weights)
                self._gradients[model_id] += gradient
        return ForwardBackwardResult(outputs=outputs, metrics={"loss:sum": total})

    def optim_step(self, model_id: str, params: AdamParams) -> dict[str, float]:
        self._training("optim_step", params.learning_rate)
        norm = float(np.linalg.norm(self._gradients[model_id]))
        self._logits[model_id] -= params.learning_rate * self._gradients[model_id]
        self._gradients[model_id][:] = 0
        self._steps[model_id] += 1
        return {"grad_norm:mean": norm}

    def save_weights(self, model_id: str, folder: Path, *, optimizer: bool) -> None:
        self._training("save_weights", folder.name)
        lora = self._loras[model_id]
        tensors = {"logits": self._logits[model_id], "lora": np.array([lora.rank])}
        save_file(tensors, folder / "adapter_model.safetensors")
        if optimizer:
            steps = {"steps": np.array([self._steps[model_id]])}
            save_file(steps, folder / "optimizer.safetensors")

    def load_weights(self, model_id: str, folder: Path, *, optimizer: bool) -> None:
        self._training("load_weights", folder.name)
        self._logits[model_id] = load_file(folder / "adapter_model.safetensors")["logits"]
        if optimizer:
            steps = load_file(folder / "optimizer.safetensors")["steps"]
            self._steps[model_id] = int(steps[0])

    def lora_config_of(self, folder: Path) -> LoraConfig:
        rank = int(load_file(folder / "adapter_model.safetensors")["lora"][0])
        return LoraConfig(rank=rank, alpha=32.0)

    def load_adapter(self, adapter_id: str, folder: Path) -> None:
        self._sampling("load_adapter", adapter_id)
        if not folder.exists():
            raise NotFoundError(f"{folder.name} is gone")
        self._adapters[adapter_id] = load_file(folder / "adapter_model.safetensors")["logits"]

    def unload_adapter(self, adapter_id: str) -> None:
        self._sampling("unload_adapter", adapter_id)
        del self._adapters[adapter_id]

    def submit(self, request_id: str, request: SampleRequest) -> None:
        self._sampling("submit", request_id)
        if int(request.prompt.max()) >= VOCABULARY:
            raise InvalidRequestError("a token is not in the vocabulary")
        self._requests[request_id] = request

    def cancel(self, request_id: str) -> None:
        self._sampling("cancel", request_id)
        self._requests.pop(request_id, None)

    def step(self) -> list[EndedRequest]:
        self.threads["sampler"].add(threading.current_thread().name)
        if not self._requests:
            return []
        self.calls.append(("begin", len(self._requests)))
        assert self.gate.wait(timeout=30)
        ending = {
            request_id: request
            for request_id, request in self._requests.items()
            if (request.params.max_tokens or 0) < LONG or self.ending.is_set()
        }
        for request_id in ending:
            del self._requests[request_id]
        if ending:
            self.calls.append(("step", len(ending)))
        else:
            self.ending.wait(0.001)
        return [
            EndedRequest(request_id=request_id, outcome=self._answer(request))
            for request_id, request in ending.items()
        ]

    def _training(self, name: str, argument: object) -> None:
        self.threads["trainer"].add(threading.current_thread().name)
        self.calls.append((name, argument))
        assert self.gate.wait(timeout=30)

    def _sampling(self, name: str, argument: object) -> None:
        self.threads["sampler"].add(threading.current_thread().name)
        self.calls.append((name, argument))

    def _answer(self, request: SampleRequest) -> SampleResult:
        logits = np.zeros(VOCABULARY)
        if request.adapter_id is not None:
            logits = self._adapters[request.adapter_id]
        logprobs_V = _log_softmax(logits)
        sequences = []
        for index in range(request.num_samples):
            generator = np.random.default_rng([request.params.seed or 0, index])
            count = min(request.params.max_tokens or 4, 64)
            tokens = generator.choice(VOCABULARY, size=count, p=np.exp(logprobs_V))
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


def _log_softmax(logits: Logits) -> Logits:
    shifted = logits - logits.max()
    logprobs: Logits = shifted - np.log(np.exp(shifted).sum())
    return logprobs
