"""The two protocols of an executor. The engine schedules; an executor computes.

An executor may be a :class:`Trainer`, a :class:`Sampler`, or both. The engine calls each protocol
from a thread of its own, its *lane*, one call at a time. Where one object is both, the two lanes
call it at the same time, and the executor keeps them apart: a training step must not wait for a
completion to end, nor a completion for more than one pass of training.

Bad input raises a subclass of :class:`art.errors.ArtError` and leaves everything as it was.
``model_id``, ``adapter_id`` and ``request_id`` are opaque to an executor.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

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


class Trainer(Protocol):
    """Trains many adapters beside one base model. Called on the training lane only."""

    @property
    def base_model(self) -> BaseModelInfo:
        """The model in memory. May be read from any thread."""
        ...

    def create_model(self, model_id: str, lora: LoraConfig) -> None:
        """Add a trainable adapter; B is zero, so the model answers as the base does."""
        ...

    def unload_model(self, model_id: str) -> None:
        """Forget an adapter, its gradients and its optimizer state."""
        ...

    def forward_backward(
        self, model_id: str, data: Sequence[Datum], loss: LossFunction, *, backward: bool
    ) -> ForwardBackwardResult:
        """Compute the loss, summed over all tokens; with ``backward``, add to the gradients."""
        ...

    def optim_step(self, model_id: str, params: AdamParams) -> dict[str, float]:
        """Take one AdamW step with the gradients since the last, then clear them."""
        ...

    def save_weights(self, model_id: str, folder: Path, *, optimizer: bool) -> None:
        """Write a PEFT adapter folder; with ``optimizer``, its state beside it, as safetensors.

        ``folder`` exists and is empty. The caller makes the write atomic.
        """
        ...

    def load_weights(self, model_id: str, folder: Path, *, optimizer: bool) -> None:
        """Replace an adapter's weights (and optimizer state) by a folder's."""
        ...

    def lora_config_of(self, folder: Path) -> LoraConfig:
        """Read the adapter configuration of a folder that :meth:`save_weights` wrote."""
        ...


class Sampler(Protocol):
    """Samples from a base model and adapters beside it. Called on the sampling lane only."""

    @property
    def base_model(self) -> BaseModelInfo:
        """The model in memory. May be read from any thread."""
        ...

    @property
    def sampling_controls(self) -> frozenset[str]:
        """The fields of :class:`~art.formats.sampling_controls.SamplingControls` that it honours.

        A request that sets another one is never submitted. May be read from any thread.
        """
        ...

    def load_adapter(self, adapter_id: str, folder: Path) -> None:
        """Make a folder's adapter available to sample from. Its weights do not change later."""
        ...

    def unload_adapter(self, adapter_id: str) -> None:
        """Forget an adapter. No request that uses it is unfinished."""
        ...

    def submit(self, request_id: str, request: SampleRequest) -> None:
        """Take a request on. Nothing is computed before the next :meth:`step`.

        Raises:
            ArtError: The request cannot be answered. Others are not affected.
        """
        ...

    def cancel(self, request_id: str) -> None:
        """Drop a request, running or not; it costs nothing from the next :meth:`step` on.

        One that has ended, or was never submitted, is no error.
        """
        ...

    def step(self) -> list[EndedRequest]:
        """Advance the running requests by about one token each, and hand over those that ended.

        With nothing to do it returns at once. A failure that belongs to one request is that
        request's outcome; what it raises itself fails every request that has not ended, and
        leaves none running.
        """
        ...


class Executor(Trainer, Sampler, Protocol):
    """Trainer and sampler in one."""
