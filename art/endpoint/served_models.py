"""Which weights answer to which model name."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import tinker


class Sampler(Protocol):
    """Samples from one set of weights."""

    async def sample(
        self, prompt: list[int], num_samples: int, params: tinker.SamplingParams, topk_logprobs: int
    ) -> tinker.SampleResponse:
        """Sample from the weights.

        Args:
            prompt: Token ids, at least one.
            num_samples: How many sequences.
            params: How to sample.
            topk_logprobs: How many alternatives to return for each sampled token.

        Returns:
            The sequences.
        """
        ...


# Opens the sampler of a saved checkpoint's path; of the base model where that is None.
OpenSampler = Callable[[str | None], Awaitable[Sampler]]


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A name that the endpoint answers to.

    Attributes:
        name: As in a request's ``model``.
        sampler_path: The checkpoint's path on the Tinker server; ``None`` is the base model.
        created: When it was first served, in seconds since the epoch.
    """

    name: str
    sampler_path: str | None
    created: int


class Samplers:
    """The models that an endpoint serves: the base model, ``name@step`` and, the latest, ``name``.

    Written by the service's thread, read by the endpoint's. Samplers are opened on first use, and
    only ever by the endpoint's event loop.

    Args:
        model_name: Name of the trained model.
        base_model: Name of the base model, which is served too.
        open_sampler: Opens a sampler.
    """

    def __init__(self, model_name: str, base_model: str, open_sampler: OpenSampler) -> None:
        self._model_name = model_name
        self._open_sampler = open_sampler
        self._lock = threading.Lock()
        self._models: dict[str, ServedModel] = {}
        self._opened: dict[str | None, asyncio.Task[Sampler]] = {}
        self._serve(base_model, None)

    def publish(self, step: int, sampler_path: str) -> None:
        """Serve a step's checkpoint, as the latest."""
        with self._lock:
            self._serve(f"{self._model_name}@{step}", sampler_path)
            self._serve(self._model_name, sampler_path)

    def withdraw(self, step: int) -> None:
        """Serve a step's checkpoint no more."""
        with self._lock:
            model = self._models.pop(f"{self._model_name}@{step}", None)
            if model is not None:
                self._opened.pop(model.sampler_path, None)

    def forget_opened(self) -> None:
        """Open every sampler anew: the server that they belonged to has gone."""
        with self._lock:
            self._opened = {}

    def models(self) -> list[ServedModel]:
        """The models that are served, the oldest first."""
        with self._lock:
            return list(self._models.values())

    def find(self, name: str) -> ServedModel | None:
        """The model that answers to a name."""
        with self._lock:
            return self._models.get(name)

    async def sampler(self, model: ServedModel) -> Sampler:
        """Open a model's sampler, or reuse it. Call this from the endpoint's event loop only."""
        with self._lock:
            task = self._opened.get(model.sampler_path)
            if task is None:
                task = asyncio.ensure_future(self._open(model.sampler_path))
                self._opened[model.sampler_path] = task
        # One caller's cancellation must not fail the others that wait for the same sampler.
        try:
            return await asyncio.shield(task)
        except BaseException:
            if task.done():
                self._forget(model.sampler_path, task)
            raise

    async def _open(self, path: str | None) -> Sampler:
        return await self._open_sampler(path)

    def _forget(self, path: str | None, task: "asyncio.Task[Sampler]") -> None:
        with self._lock:
            if self._opened.get(path) is task:
                del self._opened[path]

    def _serve(self, name: str, path: str | None) -> None:
        self._models[name] = ServedModel(name, path, int(time.time()))
