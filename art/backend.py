"""The protocol that every backend implements, and the identity of a model as a backend sees it."""

from collections.abc import Iterable
from typing import Any, Protocol, Unpack

from art.dev.model import InternalModelConfig
from art.dev.openai_server import OpenAIServerConfig
from art.trajectories import Trajectory, TrajectoryGroup
from art.types import TrainConfig, TrainOptions, TrainResult, TrainSFTConfig


class AnyModel(Protocol):
    """The identity of a model, as a backend sees it. :class:`art.model.Model` is one.

    Attributes:
        base_path: Root of all state. A backend that keeps a model's state sets it.
    """

    base_path: str

    # Properties, so that a backend cannot set them, and a model may declare them more narrowly.
    @property
    def name(self) -> str:
        """Name of the model; a folder's name too."""
        ...

    @property
    def project(self) -> str:
        """Name of the project; a folder's name too."""
        ...

    @property
    def trainable(self) -> bool:
        """True for an :class:`AnyTrainableModel`."""
        ...

    @property
    def inference_model_name(self) -> str | None:
        """The model's name at its endpoint, where that is not ``name``."""
        ...

    def describe(self) -> dict[str, Any]:
        """Describe the model as JSON values, without its API key."""
        ...


class AnyTrainableModel(AnyModel, Protocol):
    """The identity of a model to train. :class:`art.model.TrainableModel` is one."""

    @property
    def base_model(self) -> str:
        """Name or folder of the model that training starts from."""
        ...

    @property
    def internal_config(self) -> InternalModelConfig | None:
        """The settings of the adapter and the chat template; ``None`` is the defaults."""
        ...


class Backend(Protocol):
    """Serves a model's completions and trains it.

    Users call :meth:`train` and :meth:`close`; :class:`art.model.Model` calls the others.
    """

    async def register(self, model: AnyModel) -> None:
        """Take a model on. Called by ``model.register(backend)``.

        Args:
            model: The model; its project and name say where its state lies.
        """
        ...

    async def prepare_for_training(
        self, model: AnyTrainableModel, endpoint_config: OpenAIServerConfig | None = None
    ) -> tuple[str, str]:
        """Make a trainable model ready: its adapter exists, and its latest step is being served.

        Args:
            model: A registered model.
            endpoint_config: Settings of the OpenAI-compatible endpoint; ``None`` is the defaults.

        Returns:
            The base URL of the endpoint, ending in ``/v1``, and its API key.

        Raises:
            art.errors.UnknownBaseModelError: The server has no such base model.
        """
        ...

    def inference_name(self, model: AnyModel, step: int | None = None) -> str:
        """Name a model as its endpoint serves it.

        Args:
            model: A registered model.
            step: The checkpoint that is wanted; ``None`` is the latest.
        """
        ...

    async def get_step(self, model: AnyTrainableModel) -> int:
        """Count the training steps that a model has taken."""
        ...

    async def train(
        self,
        model: AnyTrainableModel,
        trajectory_groups: Iterable[TrajectoryGroup],
        *,
        config: TrainConfig | None = None,
        **options: Unpack[TrainOptions],
    ) -> TrainResult:
        """Take one training step and serve the new weights.

        Args:
            model: A registered model.
            trajectory_groups: The step's rollouts. Advantages are computed within each group.
            config: Settings of the step; ``None`` is :class:`art.types.TrainConfig`'s defaults.
            **options: Single fields of ``config``, which they override.

        Returns:
            The model's step afterwards, and metrics.

        Raises:
            art.errors.TrainingDataError: The trajectories cannot be trained on.
            art.errors.ConfigurationError: An option cannot be used.
            art.errors.EngineError: The engine failed; earlier checkpoints are intact.
        """
        ...

    async def train_sft(
        self,
        model: AnyTrainableModel,
        trajectories: Iterable[Trajectory],
        config: TrainSFTConfig | None = None,
    ) -> TrainResult:
        """Imitate the assistant turns of trajectories and serve the new weights.

        Args:
            model: A registered model.
            trajectories: The examples.
            config: Batch size and learning rates; ``None`` is the defaults.

        Returns:
            The model's step afterwards, one more than before, and metrics.

        Raises:
            art.errors.TrainingDataError: The trajectories cannot be trained on.
            art.errors.ConfigurationError: An option cannot be used.
            art.errors.EngineError: The engine failed; earlier checkpoints are intact.
        """
        ...

    async def delete_checkpoints(self, model: AnyTrainableModel, steps_to_keep: list[int]) -> None:
        """Delete all checkpoints of a model but those of ``steps_to_keep``."""
        ...

    async def close(self) -> None:
        """Release what the backend holds. Checkpoints stay. Calling it again does nothing."""
        ...
