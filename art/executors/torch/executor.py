"""The executor on torch, transformers and PEFT: one device, one base model, many adapters."""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

from art.errors import ConfigurationError, InvalidRequestError, NotFoundError
from art.executors.base_models import resolve_base_model
from art.executors.registry import ExecutorOptions, Progress
from art.executors.torch.adapters import Adapters
from art.executors.torch.grammars import can_compile_grammars
from art.executors.torch.language_model import LanguageModel
from art.executors.torch.optimizer import AdamW
from art.executors.torch.sampling import BatchSampler
from art.executors.torch.training import forward_backward
from art.executors.types import (
    BaseModelInfo,
    Datum,
    EndedRequest,
    ForwardBackwardResult,
    LoraConfig,
    LossFunction,
    SampleRequest,
)
from art.formats.adam import AdamParams
from art.formats.sampling_controls import SamplingControls

logger = logging.getLogger(__name__)

_OPTIMIZER_FILE = "optimizer.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Model:
    """A model that is trained: its adapter's name and its optimizer."""

    adapter: str
    optimizer: AdamW


class TorchExecutor:
    """Trains and samples on one device. Implements :class:`art.executors.protocol.Executor`.

    Its two lanes share one base model, whose modules hold the active adapter. So each pass takes
    a turn, in the order of asking: for training, forward and backward of a packed pass; for
    sampling, the prompts of a batch or one token of it. Adding and removing an adapter takes one
    too. A lane so waits for one pass of the other, and never do two compute at once.

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
        self._adapters = Adapters(self._language_model, self._info.name)
        self._sampler = BatchSampler(self._language_model, self._sampling_turn, max_cached_tokens)
        # Of the training lane only; what is loaded to sample from is of the sampling lane only.
        self._models: dict[str, _Model] = {}
        self._loaded: set[str] = set()
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
            InvalidRequestError: The id is taken, or the adapter cannot be made: its rank or alpha
                cannot be used, nothing is left to train, or the base model has experts that
                cannot be adapted.
        """
        if model_id in self._models:
            raise InvalidRequestError(f"there is a model {model_id!r} already")
        adapter = f"model {model_id}"
        self._adapters.add(adapter, lora, trainable=True)
        optimizer = AdamW(self._adapters.parameters(adapter))
        self._models[model_id] = _Model(adapter=adapter, optimizer=optimizer)

    def unload_model(self, model_id: str) -> None:
        """Forget an adapter, its gradients and its optimizer state.

        Raises:
            NotFoundError: There is no such model.
        """
        self._adapters.remove(self._find(model_id).adapter)
        del self._models[model_id]

    def forward_backward(
        self, model_id: str, data: Sequence[Datum], loss: LossFunction, *, backward: bool
    ) -> ForwardBackwardResult:
        """Compute the loss, summed over all tokens; with ``backward``, add to the gradients.

        The gradients change only when all of the data has been computed.

        Raises:
            NotFoundError: There is no such model.
            InvalidRequestError: The loss or its configuration is unknown.
            ContextLengthError: A datum is longer than the context.
            TrainingDataError: A datum cannot be used.
        """
        model = self._find(model_id)
        result, gradient = forward_backward(
            self._language_model,
            partial(self._adapters.turn, model.adapter),
            self._adapters.parameters(model.adapter),
            data,
            loss,
            backward=backward,
        )
        if gradient is not None:
            model.optimizer.accumulate(gradient)
        return result

    def optim_step(self, model_id: str, params: AdamParams) -> dict[str, float]:
        """Take one AdamW step with the gradients since the last, then clear them.

        Returns:
            ``grad_norm:mean``, the global norm of the gradient before clipping.

        Raises:
            NotFoundError: There is no such model.
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
        self._adapters.save(model.adapter, folder)
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
        weights = self._adapters.read(model.adapter, folder)
        if optimizer:
            model.optimizer.load(folder / _OPTIMIZER_FILE)
        else:
            model.optimizer.reset()
        self._adapters.write(model.adapter, weights)

    def lora_config_of(self, folder: Path) -> LoraConfig:
        """Read the adapter configuration of a folder that :meth:`save_weights` wrote.

        Raises:
            CheckpointError: The folder cannot be read, or is of another base model.
        """
        return self._adapters.read_config(folder)

    @property
    def sampling_controls(self) -> frozenset[str]:
        """The fields of :class:`SamplingControls` that are honoured; all where llguidance is."""
        names = frozenset(field.name for field in fields(SamplingControls))
        return names if can_compile_grammars() else names - {"grammar"}

    def load_adapter(self, adapter_id: str, folder: Path) -> None:
        """Make a folder's adapter available to sample from. Its weights do not change later.

        Raises:
            CheckpointError: The folder cannot be read, or is of another base model.
            InvalidRequestError: The id is taken.
        """
        if adapter_id in self._loaded:
            raise InvalidRequestError(f"there is an adapter {adapter_id!r} already")
        self._adapters.add_from(_sampled(adapter_id), folder)
        self._loaded.add(adapter_id)

    def unload_adapter(self, adapter_id: str) -> None:
        """Forget an adapter. No request that uses it is unfinished.

        Raises:
            NotFoundError: There is no such adapter.
        """
        self._check_loaded(adapter_id)
        self._adapters.remove(_sampled(adapter_id))
        self._loaded.discard(adapter_id)

    def submit(self, request_id: str, request: SampleRequest) -> None:
        """Take a request on. Nothing is computed before the next :meth:`step`.

        Raises:
            NotFoundError: Its adapter is not loaded.
            InvalidRequestError: A parameter cannot be used, the grammar cannot be compiled, or
                the id is taken.
            ContextLengthError: The prompt leaves no room in the context.
        """
        if request.adapter_id is not None:
            self._check_loaded(request.adapter_id)
        self._sampler.submit(request_id, request)

    def cancel(self, request_id: str) -> None:
        """Drop a request, running or not; it costs nothing from the next :meth:`step` on."""
        self._sampler.cancel(request_id)

    def step(self) -> list[EndedRequest]:
        """Advance the running requests by one token each, and hand over those that ended.

        A request that cannot go on, or whose pass of the model failed, ends with the exception:
        an :class:`~art.errors.EngineError` where a pass failed.
        """
        return self._sampler.step()

    def _sampling_turn(self, adapter_id: str | None) -> AbstractContextManager[None]:
        return self._adapters.turn(None if adapter_id is None else _sampled(adapter_id))

    def _find(self, model_id: str) -> _Model:
        if model_id not in self._models:
            raise NotFoundError(f"there is no model {model_id!r}; was it unloaded?")
        return self._models[model_id]

    def _check_loaded(self, adapter_id: str) -> None:
        if adapter_id not in self._loaded:
            raise NotFoundError(f"there is no adapter {adapter_id!r}; was it unloaded?")


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


def _sampled(adapter_id: str) -> str:
    # Beside the adapters of models, whose ids may be the same.
    return f"sampled {adapter_id}"
