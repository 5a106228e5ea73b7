"""The backend that trains on a Tinker server: the hosted service, or any with the same API."""

import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from art._internal.deferred import DeferredModule
from art.errors import MissingAPIKeyError
from art.runs.paths import checkpoint_steps, model_dir

# As in `art._lazy`: importing `typing` costs more than the rest of this module together. What
# signatures name is imported when they are evaluated.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import typing

    from art import backend, trajectories
    from art import types as art_types
    from art.dev import openai_server
    from art.runs import progress
    from art.tinker.connection import Connection
    from art.tinker.service import TinkerService
else:
    typing = DeferredModule("typing")
    backend = DeferredModule("art.backend")
    trajectories = DeferredModule("art.trajectories")
    art_types = DeferredModule("art.types")
    openai_server = DeferredModule("art.dev.openai_server")
    progress = DeferredModule("art.runs.progress")

logger = logging.getLogger(__name__)


def refuse_options(call: str, options: dict[str, object]) -> None:
    """Refuse options of ART's that would have an effect there, and unknown ones.

    Args:
        call: Whose options they are, such as ``"art.LocalBackend"``.
        options: Options by name.

    Raises:
        art.errors.ConfigurationError: An option of ART's is refused; says the way.
        TypeError: An option is not ART's either.
    """
    from art._internal.refused_names import drop_neutral

    for name in drop_neutral(call, options):
        raise TypeError(f"{call}() got an unexpected keyword argument {name!r}")


class TinkerBackend:
    """Trains models on a Tinker server and serves them to OpenAI clients on this machine.

    ::

        async with art.TinkerBackend() as backend:
            await model.register(backend)

    Nothing is contacted, and the SDK is not imported, before a model is registered.

    Args:
        tinker_api_key: The key; ``None`` reads ``TINKER_API_KEY`` when it is needed.
        base_url: The server; ``None`` is ``TINKER_BASE_URL``, or else the hosted service.
        path: Root of all models' state.
        show_progress: Shows the progress of long work; ``None`` shows bars on the terminal.
        **options: ART's further options. One that would have an effect there is refused.

    Raises:
        art.errors.ConfigurationError: An option of ART's is refused.
    """

    def __init__(
        self,
        *,
        tinker_api_key: str | None = None,
        base_url: str | None = None,
        path: str | os.PathLike[str] = ".art",
        show_progress: "progress.ShowProgress | None" = None,
        **options: object,
    ) -> None:
        refuse_options("art.TinkerBackend", options)
        self._api_key = tinker_api_key
        self._base_url = base_url
        self._path = os.fspath(path)
        self._show_progress = show_progress
        self._services: dict[tuple[str, str], TinkerService] = {}

    if not TYPE_CHECKING:  # a type checker would take it that every name is there

        def __getattr__(self, name: str) -> object:
            from art._internal.refused_names import find_way

            way = find_way(f"art.local.LocalBackend.{name}")
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}{way and f': {way}'}",
                name=name,
                obj=self,
            )

    async def __aenter__(self) -> "typing.Self":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def register(self, model: "backend.AnyModel") -> None:
        """Keep a model's state under the backend's path from now on.

        Args:
            model: The model. Its ``model.json`` is written. Where it is to be trained, no other
                backend can take it on until this one is closed.

        Raises:
            art.errors.ConfigurationError: Its project or its name cannot be a folder's name.
            art.errors.ModelInUseError: Another backend, in this process or another, trains it.
            art.errors.CheckpointError: Its folder cannot be written to.
        """
        from art._internal.files import write_text
        from art.runs.file_errors import file_errors

        folder = self._output_dir(model)
        if model.trainable:
            service = await self._get_service(typing.cast("backend.AnyTrainableModel", model))
            service.take_on()
        model.base_path = self._path
        with file_errors(folder / "model.json", "written"):
            write_text(folder / "model.json", json.dumps(model.describe(), indent=2))

    async def train(
        self,
        model: "backend.AnyTrainableModel",
        trajectory_groups: "Iterable[trajectories.TrajectoryGroup]",
        *,
        config: "art_types.TrainConfig | None" = None,
        **options: "typing.Unpack[art_types.TrainOptions]",
    ) -> "art_types.LocalTrainResult":
        """Take one training step and serve the new weights.

        Where all rollouts failed, or the rewards within every group are equal, there is nothing
        to learn: no step is taken, a warning is logged, and the metrics say how many groups
        failed and how many were dropped. Trajectories that cannot be trained on are left out and
        counted: see :func:`art.rl.sequences.training_batch`.

        Args:
            model: A registered model.
            trajectory_groups: The step's rollouts. Advantages are computed within each group.
            config: Settings of the step; ``None`` is :class:`art.types.TrainConfig`'s defaults.
            **options: Single fields of ``config``, which they override.

        Returns:
            The model's step afterwards, its checkpoint's folder, and metrics.

        Raises:
            art.errors.TrainingDataError: None of the trajectories can be trained on. Nothing was
                sent.
            art.errors.ConfigurationError: An option cannot be used.
            art.errors.InvalidRequestError: The server refused the loss or its config.
            art.errors.EngineError: The server failed; earlier checkpoints are intact.
        """
        from art.rl.sequences import training_batch
        from art.types import LocalTrainResult, TrainConfig

        config = (config or TrainConfig()).with_options(options)
        batch = training_batch(trajectory_groups, normalize_advantages=config.normalize_advantages)
        service = await self._get_service(model)
        if not batch.sequences:
            logger.warning(
                "%s: no step was taken: of %d groups %d failed, and the rewards within each of the "
                "others are all equal",
                model.name,
                batch.metrics["data/step_num_groups_submitted"],
                batch.metrics["data/step_num_groups_failed"],
            )
            return LocalTrainResult(service.step, batch.metrics)
        metrics = await service.train(batch.sequences, config)
        step = service.step
        folder = service.checkpoint_dir(step)
        return LocalTrainResult(step, {**batch.metrics, **metrics}, str(folder))

    async def train_sft(
        self,
        model: "backend.AnyTrainableModel",
        trajectories: "Iterable[trajectories.Trajectory]",
        config: "art_types.TrainSFTConfig | None" = None,
    ) -> "art_types.LocalTrainResult":
        """Imitate the assistant turns of trajectories, and serve the new weights.

        Each batch is one optimizer step on the loss ``cross_entropy``; the call as a whole is one
        step of the model, with one checkpoint. ``model.train_sft`` logs what this returns.

        Args:
            model: A registered model.
            trajectories: The examples. One that cannot be trained on is dropped with a warning.
            config: Batch size and learning rates; ``None`` is the defaults of
                :class:`art.types.TrainSFTConfig`.

        Returns:
            The model's step afterwards, its checkpoint's folder, and means over the batches.

        Raises:
            art.errors.NoTrainableTokensError: Nothing can be trained on. Nothing was sent.
            art.errors.ConfigurationError: There are too few learning rates. Nothing was sent.
            art.errors.EngineError: The server failed; the last checkpoint is intact.
        """
        from art.types import LocalTrainResult, TrainSFTConfig

        service = await self._get_service(model)
        metrics = await service.train_sft(list(trajectories), config or TrainSFTConfig())
        return LocalTrainResult(service.step, metrics, str(service.checkpoint_dir(service.step)))

    async def close(self) -> None:
        """Stop the endpoints and end the sessions. Checkpoints stay."""
        from contextlib import AsyncExitStack

        services, self._services = self._services, {}
        async with AsyncExitStack() as stack:
            # All of them are closed, even where one fails.
            for service in services.values():
                stack.push_async_callback(service.aclose)

    async def prepare_for_training(
        self,
        model: "backend.AnyTrainableModel",
        endpoint_config: "openai_server.OpenAIServerConfig | None" = None,
    ) -> tuple[str, str]:
        """Resume or create the model's adapter, and serve its latest step.

        Args:
            model: A registered model.
            endpoint_config: Settings of the OpenAI-compatible endpoint; ``None`` is the defaults.

        Returns:
            The base URL of the endpoint, ending in ``/v1``, and its API key.

        Raises:
            art.errors.MissingAPIKeyError: There is no key for the server.
            art.errors.UnknownBaseModelError: The server has no such base model.
            art.errors.ModelInUseError: Another backend, in this process or another, trains it.
            art.errors.ConfigurationError: An option cannot be used.
            art.errors.EngineError: The server cannot be reached, or failed.
        """
        from art._internal.proxies import bypass_proxies

        service = await self._get_service(model)
        await service.start_openai_server(endpoint_config)
        # For clients that the user makes, or that a process makes which the user starts.
        bypass_proxies(service.base_url)
        return service.base_url, service.api_key

    async def get_step(self, model: "backend.AnyTrainableModel") -> int:
        """Count the training steps that a model has taken."""
        return (await self._get_service(model)).step

    async def delete_checkpoints(
        self, model: "backend.AnyTrainableModel", steps_to_keep: list[int]
    ) -> None:
        """Delete all checkpoints of a model but the latest and those of ``steps_to_keep``."""
        await (await self._get_service(model)).delete_checkpoints(steps_to_keep)

    def inference_name(self, model: "backend.AnyModel", step: int | None = None) -> str:
        """Name a model as its endpoint serves it: ``name@step``.

        Args:
            model: A registered model.
            step: The checkpoint that is wanted; ``None`` is the latest.
        """
        if not model.trainable:
            return model.inference_model_name or model.name
        if step is None:
            step = max(checkpoint_steps(self._output_dir(model)), default=0)
        return f"{model.name}@{step}"

    # Code written for ART calls these.
    _prepare_backend_for_training = prepare_for_training
    _get_step = get_step
    _delete_checkpoint_files = delete_checkpoints
    _model_inference_name = inference_name

    async def _get_service(self, model: "backend.AnyTrainableModel") -> "TinkerService":
        """Make the model's service, or reuse it. Making one contacts nothing."""
        key = (model.project, model.name)
        if key not in self._services:
            from art.dev.get_model_config import get_model_config
            from art.runs.progress import terminal_progress

            # Through the package, so that a missing SDK says which extra brings it.
            from art.tinker import TinkerService

            output_dir = str(self._output_dir(model))
            self._services[key] = TinkerService(
                model.name,
                model.base_model,
                get_model_config(model.base_model, output_dir, model.internal_config),
                output_dir,
                connect=lambda: self._connect(model.base_model),
                checkpoint_saved=self._checkpoint_saved,
                show_progress=self._show_progress or terminal_progress,
            )
        return self._services[key]

    def _output_dir(self, model: "backend.AnyModel") -> Path:
        return model_dir(self._path, model.project, model.name)

    async def _connect(self, base_model: str) -> "Connection":
        """Connect to the server of a base model.

        Raises:
            MissingAPIKeyError: There is no key.
        """
        from art.tinker.connection import Connection

        key = self._api_key or os.environ.get("TINKER_API_KEY")
        if not key:
            raise MissingAPIKeyError(
                "there is no key for the Tinker service: set the environment variable "
                "TINKER_API_KEY, or train on this machine with art.LocalBackend()"
            )
        return Connection(self._base_url, key)

    async def _checkpoint_saved(self, folder: Path, sampler_path: str) -> None:
        """Put further files into a checkpoint's folder, before it appears under its name.

        Args:
            folder: The folder under its temporary name.
            sampler_path: The checkpoint's ``tinker://`` path.
        """
