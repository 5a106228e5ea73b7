"""What trains a model: the protocol that every backend implements."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, Unpack

from art.trajectories import TrajectoryGroup
from art.types import TrainConfig, TrainOptions, TrainResult

if TYPE_CHECKING:
    from art.dev.openai_server import OpenAIServerConfig
    from art.model import Model, TrainableModel

AnyModel: TypeAlias = "Model[Any]"
AnyTrainableModel: TypeAlias = "TrainableModel[Any]"


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

    async def _prepare_backend_for_training(
        self, model: AnyTrainableModel, config: "OpenAIServerConfig | None"
    ) -> tuple[str, str]:
        """Make a trainable model ready: its adapter exists, and its latest step is being served.

        Args:
            model: A registered model.
            config: Settings of the OpenAI-compatible endpoint; ``None`` is the defaults.

        Returns:
            The base URL of the endpoint, ending in ``/v1``, and its API key.

        Raises:
            art.errors.UnknownBaseModelError: The server has no such base model.
        """
        ...

    def _model_inference_name(self, model: AnyModel, step: int | None = None) -> str:
        """The name by which the endpoint serves a model.

        Args:
            model: A registered model.
            step: The checkpoint that is wanted; ``None`` is the latest.
        """
        ...

    async def _get_step(self, model: AnyTrainableModel) -> int:
        """How many training steps a model has taken."""
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

    async def _delete_checkpoint_files(
        self, model: AnyTrainableModel, steps_to_keep: list[int]
    ) -> None:
        """Delete all checkpoints of a model but those of ``steps_to_keep``."""
        ...

    async def close(self) -> None:
        """Release what the backend holds. Checkpoints stay. Calling it again does nothing."""
        ...
