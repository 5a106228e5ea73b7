"""What computes: the engine schedules, an executor runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from art.executors.types import (
    AdamParams,
    BaseModelInfo,
    Datum,
    ForwardBackwardResult,
    LoraConfig,
    LossFunction,
    SampleRequest,
    SampleResult,
)


class Executor(Protocol):
    """One base model, many adapters. Called from one thread, one call at a time.

    Bad input raises a subclass of :class:`art.errors.ArtError`, and leaves everything as it was.
    ``model_id`` and ``sampler_id`` are opaque to an executor.
    """

    @property
    def base_model(self) -> BaseModelInfo:
        """The model in memory."""
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
        """The adapter configuration of a folder that ``save_weights`` wrote."""
        ...

    def load_sampler(self, sampler_id: str, folder: Path) -> None:
        """Make a folder's adapter available to sample from. Its weights do not change later."""
        ...

    def unload_sampler(self, sampler_id: str) -> None:
        """Forget a sampler's weights."""
        ...

    def sample(self, requests: Sequence[SampleRequest]) -> list[SampleResult]:
        """Answer all requests in as few passes as possible, in the order given."""
        ...
