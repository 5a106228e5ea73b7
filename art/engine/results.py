"""The results that requests come to, before they are encoded for the wire."""

from collections.abc import Mapping
from dataclasses import dataclass

from art.engine.target_layout import TargetLayout
from art.executors.types import ForwardBackwardResult, SampleResult
from art.formats.checkpoint_paths import CheckpointPath


@dataclass(frozen=True, slots=True)
class ModelCreated:
    """A model is ready to train."""

    model_id: str


@dataclass(frozen=True, slots=True)
class WeightsLoaded:
    """A model has a checkpoint's weights."""

    model_id: str
    path: CheckpointPath


@dataclass(frozen=True, slots=True)
class WeightsSaved:
    """A checkpoint is on disk."""

    path: CheckpointPath


@dataclass(frozen=True, slots=True)
class SavedForSampling:
    """Weights without a name can be sampled from."""

    sampling_session_id: str


@dataclass(frozen=True, slots=True)
class OptimStepped:
    """The optimizer has taken a step; metrics by ``name:reduction``."""

    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Sampled:
    """Samples; of the prompt's logprobs the last ``prompt_logprobs_last_n``, if not all.

    ``target_layout`` is where the targets of the prompt stood, if there were any.
    """

    result: SampleResult
    prompt_logprobs_last_n: int | None = None
    target_layout: TargetLayout | None = None


Result = (
    ModelCreated
    | WeightsLoaded
    | WeightsSaved
    | SavedForSampling
    | OptimStepped
    | ForwardBackwardResult
    | Sampled
)
