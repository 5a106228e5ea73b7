"""The models that an endpoint serves, by name."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from art.endpoint.types import TokenCompleter

# Given a checkpoint's path, or None for the base model, returns what samples from it.
OpenCompleter = Callable[[str | None], Awaitable[TokenCompleter]]


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A name that the endpoint answers to.

    Attributes:
        name: As in a request's ``model``.
        checkpoint_path: The checkpoint's path on its server; ``None`` is the base model.
        created: The time since which it is served, in seconds since the epoch.
    """

    name: str
    checkpoint_path: str | None
    created: int


class ServedModels:
    """The base model, ``name@step`` for each step, and ``name`` for the latest one.

    The service's thread writes it, the endpoint's reads it. A completer is opened on first use,
    only ever by the endpoint's event loop.

    Args:
        model_name: Name of the trained model.
        base_model: Name of the base model, which is served too.
        open_completer: Opens a completer.
    """

    def __init__(self, model_name: str, base_model: str, open_completer: OpenCompleter) -> None:
        self._model_name = model_name
        self._open_completer = open_completer
        self._lock = threading.Lock()
        self._models: dict[str, ServedModel] = {}
        self._opened: dict[str | None, asyncio.Task[TokenCompleter]] = {}
        self._serve(base_model, None)

    def publish(self, step: int, checkpoint_path: str) -> None:
        """Serve a step's checkpoint, as the latest."""
        with self._lock:
            self._serve(f"{self._model_name}@{step}", checkpoint_path)
            self._serve(self._model_name, checkpoint_path)

    def withdraw(self, step: int) -> None:
        """Stop serving a step's checkpoint."""
        with self._lock:
            model = self._models.pop(f"{self._model_name}@{step}", None)
            if model is not None:
                self._opened.pop(model.checkpoint_path, None)

    def forget_opened(self) -> None:
        """Forget all completers, since their server is gone; the next use opens new ones."""
        with self._lock:
            self._opened = {}

    def models(self) -> list[ServedModel]:
        """All served models, the oldest first."""
        with self._lock:
            return list(self._models.values())

    @property
    def latest(self) -> ServedModel:
        """The model that is trained, as of its latest step; before its first, the base model."""
        with self._lock:
            served = self._models.get(self._model_name)
            return served or next(iter(self._models.values()))

    def find(self, name: str) -> ServedModel | None:
        """Find the model of a name."""
        with self._lock:
            return self._models.get(name)

    async def completer(self, model: ServedModel) -> TokenCompleter:
        """Open a model's completer, or reuse it. Called on the endpoint's event loop only."""
        path = model.checkpoint_path
        with self._lock:
            task = self._opened.get(path)
            if task is None:
                task = asyncio.create_task(self._open(path))
                self._opened[path] = task
        # One caller's cancellation must not fail the others that wait for the same completer.
        try:
            return await asyncio.shield(task)
        except BaseException:
            if task.done():
                self._forget(path, task)
            raise

    async def _open(self, path: str | None) -> TokenCompleter:
        return await self._open_completer(path)

    def _forget(self, path: str | None, task: "asyncio.Task[TokenCompleter]") -> None:
        with self._lock:
            if self._opened.get(path) is task:
                del self._opened[path]

    def _serve(self, name: str, path: str | None) -> None:
        self._models[name] = ServedModel(name, path, int(time.time()))
