"""The executor on torch, transformers and PEFT: one device, one base model, many adapters."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from art.errors import ConfigurationError, InvalidRequestError, NotFoundError
from art.executors.base_models import resolve_base_model
from art.executors.registry import ExecutorOptions, Progress
from art.executors.torch.adapters import Adapters, read_lora_config
from art.executors.torch.language_model import LanguageModel
from art.executors.torch.sampling import Sampling
from art.executors.torch.training import AdamW, forward_backward
from art.executors.types import (
    BaseModelInfo,
    Datum,
    ForwardBackwardResult,
    LoraConfig,
    LossFunction,
    SampleRequest,
    SampleResult,
)
from art.formats.adam import AdamParams

logger = logging.getLogger(__name__)

_OPTIMIZER_FILE = "optimizer.safetensors"


@dataclass(frozen=True, slots=True)
class _Model:
    lora: LoraConfig
    optimizer: AdamW


class TorchExecutor:
    """Trains and samples on one device. Implements :class:`art.executors.protocol.Executor`.

    Args:
        folder: The base model: config, safetensors and tokenizer (``resolve_base_model`` finds
            it).
        name: The name that the model is asked for by; ``None`` is the folder.
        device: ``"auto"`` is CUDA, else MPS, else the CPU.
        dtype: Of the base model's weights; ``"auto"`` is bfloat16 on CUDA, else float32. Adapters
            are always float32.
        max_tokens_per_pass: Most tokens in one forward pass of several sequences, which bounds the
            memory of training; ``None`` is 8192 on CUDA, else 2048. A single longer sequence runs
            alone.
        max_cached_tokens: Most tokens, of all rows together, whose keys and values are held while
            sampling; ``None`` is what fits into a quarter of the device's memory.

    Raises:
        ConfigurationError: The device, the dtype or a bound cannot be used.
        UnknownBaseModelError: The folder cannot be loaded.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        max_tokens_per_pass: int | None = None,
        max_cached_tokens: int | None = None,
    ) -> None:
        for bound in (max_tokens_per_pass, max_cached_tokens):
            if bound is not None and bound < 1:
                raise ConfigurationError(f"a bound of tokens must be 1 or more, not {bound}")
        self._language_model = LanguageModel(
            folder, device=device, dtype=dtype, max_tokens_per_pass=max_tokens_per_pass
        )
        self._info = BaseModelInfo(
            name=name or str(folder),
            tokenizer_id=str(folder),
            architecture=type(self._language_model.model).__name__,
            max_context_length=self._language_model.max_context_length,
            eos_token_ids=self._language_model.eos_token_ids,
        )
        self._sampling = Sampling(self._language_model, max_cached_tokens)
        self._adapters = Adapters(self._language_model, self._info.name)
        self._models: dict[str, _Model] = {}
        self._samplers: set[str] = set()
        logger.info(
            "%s (%s) on %s in %s",
            self._info.name,
            self._info.architecture,
            self._language_model.device,
            self._language_model.dtype,
        )

    @property
    def base_model(self) -> BaseModelInfo:
        """The model in memory."""
        return self._info

    def create_model(self, model_id: str, lora: LoraConfig) -> None:
        """Add a trainable adapter; B is zero, so the model answers as the base does.

        Raises:
            InvalidRequestError: The id is taken, or the adapter cannot be made.
        """
        if model_id in self._models:
            raise InvalidRequestError(f"there is a model {model_id!r} already")
        self._adapters.add(_model(model_id), lora)
        optimizer = AdamW(self._adapters.parameters(_model(model_id)))
        self._models[model_id] = _Model(lora, optimizer)

    def unload_model(self, model_id: str) -> None:
        """Forget an adapter, its gradients and its optimizer state.

        Raises:
            NotFoundError: There is no such model.
        """
        self._find(model_id)
        del self._models[model_id]
        self._adapters.remove(_model(model_id))

    def forward_backward(
        self, model_id: str, data: Sequence[Datum], loss: LossFunction, *, backward: bool
    ) -> ForwardBackwardResult:
        """Compute the loss, summed over all tokens; with ``backward``, add to the gradients.

        The gradients change only when all of the data has been computed.

        Raises:
            InvalidRequestError: The loss or its configuration is unknown.
            ContextLengthError: A datum is longer than the context.
            TrainingDataError: A datum cannot be used.
        """
        model = self._find(model_id)
        parameters = self._adapters.parameters(_model(model_id))
        with self._adapters.active(_model(model_id), trainable=backward):
            result, gradient = forward_backward(
                self._language_model, parameters, data, loss, backward=backward
            )
        if gradient is not None:
            model.optimizer.accumulate(gradient)
        return result

    def optim_step(self, model_id: str, params: AdamParams) -> dict[str, float]:
        """Take one AdamW step with the gradients since the last, then clear them.

        Returns:
            ``grad_norm:mean``, the global norm of the gradient before clipping.

        Raises:
            InvalidRequestError: A number cannot be used.
            TrainingDataError: There are no gradients.
            EngineError: The gradients are not finite.
        """
        return self._find(model_id).optimizer.step(params)

    def save_weights(self, model_id: str, folder: Path, *, optimizer: bool) -> None:
        """Write a PEFT adapter folder; with ``optimizer``, its state as safetensors beside it.

        Raises:
            CheckpointError: It cannot be written.
            NotFoundError: There is no such model.
        """
        model = self._find(model_id)
        self._adapters.save(_model(model_id), folder)
        if optimizer:
            model.optimizer.save(folder / _OPTIMIZER_FILE)

    def load_weights(self, model_id: str, folder: Path, *, optimizer: bool) -> None:
        """Replace an adapter's weights by a folder's, and clear its gradients.

        Without ``optimizer``, AdamW starts anew.

        Raises:
            CheckpointError: The folder cannot be read or does not fit. Nothing has changed.
            NotFoundError: There is no such model.
        """
        model = self._find(model_id)
        weights = self._adapters.read(_model(model_id), folder)
        if optimizer:
            model.optimizer.load(folder / _OPTIMIZER_FILE)
        else:
            model.optimizer.reset()
        self._adapters.write(_model(model_id), weights)

    def lora_config_of(self, folder: Path) -> LoraConfig:
        """The adapter configuration of a folder that ``save_weights`` wrote.

        Raises:
            CheckpointError: The folder cannot be read.
        """
        return read_lora_config(folder)

    def load_sampler(self, sampler_id: str, folder: Path) -> None:
        """Make a folder's adapter available to sample from. Its weights do not change later.

        Raises:
            CheckpointError: The folder cannot be read, or is of another base model.
            InvalidRequestError: The id is taken.
        """
        if sampler_id in self._samplers:
            raise InvalidRequestError(f"there is a sampler {sampler_id!r} already")
        self._adapters.add_from(_sampler(sampler_id), folder)
        self._samplers.add(sampler_id)

    def unload_sampler(self, sampler_id: str) -> None:
        """Forget a sampler's weights.

        Raises:
            NotFoundError: There is no such sampler.
        """
        self._find_sampler(sampler_id)
        self._samplers.discard(sampler_id)
        self._adapters.remove(_sampler(sampler_id))

    def sample(self, requests: Sequence[SampleRequest]) -> list[SampleResult]:
        """Answer all requests, those of one sampler together, in the order given.

        Raises:
            InvalidRequestError: A parameter of a request cannot be used.
            ContextLengthError: A prompt leaves no room in the context.
        """
        by_sampler: dict[str | None, list[int]] = {}
        for index, request in enumerate(requests):
            if request.sampler_id is not None:
                self._find_sampler(request.sampler_id)
            self._sampling.check(request)
            by_sampler.setdefault(request.sampler_id, []).append(index)
        results: dict[int, SampleResult] = {}
        for sampler_id, indices in by_sampler.items():
            adapter = None if sampler_id is None else _sampler(sampler_id)
            with self._adapters.active(adapter, trainable=False), torch.no_grad():
                answers = self._sampling.sample([requests[index] for index in indices])
            results.update(zip(indices, answers, strict=True))
        return [results[index] for index in range(len(requests))]

    def _find(self, model_id: str) -> _Model:
        if model_id not in self._models:
            raise NotFoundError(f"there is no model {model_id!r}; was it unloaded?")
        return self._models[model_id]

    def _find_sampler(self, sampler_id: str) -> None:
        if sampler_id not in self._samplers:
            raise NotFoundError(f"there is no sampler {sampler_id!r}; was it unloaded?")


def load(options: ExecutorOptions, progress: Progress) -> TorchExecutor:
    """Find a base model and load it.

    Args:
        options: What to load, and where.
        progress: Told each stage.

    Raises:
        UnknownBaseModelError: The base model cannot be found or loaded.
        ConfigurationError: The device or the dtype cannot be used.
    """
    progress("finding the base model", 0.0)
    folder = resolve_base_model(options.base_model, progress=progress)
    progress("loading the weights", 0.0)
    executor = TorchExecutor(
        folder, name=options.base_model, device=options.device, dtype=options.dtype
    )
    progress("loading the weights", 1.0)
    return executor


def _model(model_id: str) -> str:
    return f"model {model_id}"


def _sampler(sampler_id: str) -> str:
    return f"sampler {sampler_id}"
