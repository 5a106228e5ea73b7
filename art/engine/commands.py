"""The requests that the engine takes, decoded and frozen.

Routes make them from the wire's bodies. A request that could not be decoded, and that has a place
in its model's order, is a :class:`Refused` at that place, so that those behind it need not wait.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from art.engine.target_layout import TargetLayout
from art.errors import ArtError
from art.executors.types import Datum, LoraConfig, LossFunction, SampleRequest
from art.formats.adam import AdamParams
from art.formats.checkpoint_paths import CheckpointPath

Metadata = Mapping[str, object] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateModel:
    """Add a LoRA adapter to train, as the session's model ``model_seq_id``."""

    session_id: str
    model_seq_id: int
    base_model: str
    lora: LoraConfig
    user_metadata: Metadata = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateModelFrom:
    """Add an adapter that begins with a checkpoint's weights.

    Attributes:
        base_model: The base model that the client expects; ``None`` is the checkpoint's.
        optimizer: Whether the optimizer's state is loaded too.
    """

    session_id: str
    model_seq_id: int
    path: CheckpointPath
    optimizer: bool
    base_model: str | None = None
    user_metadata: Metadata = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A request at its place that can only fail, for the reason given."""

    model_id: str
    seq_id: int
    error: ArtError


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardBackward:
    """Compute a loss; with ``backward``, add its gradient to the model's."""

    model_id: str
    seq_id: int
    data: tuple[Datum, ...]
    loss: LossFunction
    backward: bool

    @property
    def size(self) -> int:
        """The bytes of its arrays."""
        return sum(
            array.nbytes
            for datum in self.data
            for array in (datum.tokens, *datum.loss_inputs.values())
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimStep:
    """Take one AdamW step."""

    model_id: str
    seq_id: int
    adam: AdamParams


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveWeights:
    """Write a checkpoint under a name.

    Attributes:
        path: Its kind says whether the optimizer's state belongs to it.
        ttl_seconds: Delete it after so many seconds; ``None`` is never.
    """

    model_id: str
    seq_id: int
    path: CheckpointPath
    overwrite: bool = False
    ttl_seconds: int | None = None
    user_metadata: Metadata = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveForSampling:
    """Write the weights without a name, for the session's sampling session of that number.

    Attributes:
        inflight: Whether all inflight sampling sessions of the model take these weights.
    """

    model_id: str
    seq_id: int
    sampling_session_seq_id: int
    inflight: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadWeights:
    """Replace a model's weights by a checkpoint's."""

    model_id: str
    seq_id: int
    path: CheckpointPath
    optimizer: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateSamplingSession:
    """Open a view of a checkpoint's weights, or of the base model's."""

    session_id: str
    sampling_session_seq_id: int
    base_model: str | None = None
    path: CheckpointPath | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Sample from a sampling session's weights.

    Attributes:
        request: Its ``adapter_id`` is filled in by the engine; without ``stop_token_ids`` of its
            own it ends where the model does.
        ends_as_the_model_does: Whether the base model's own end tokens stop a sequence.
        prompt_logprobs_last_n: Return the logprobs of the last so many prompt tokens only.
        target_layout: Where the request's ``target_prompt_tokens`` stood; ``None`` without any.
    """

    sampling_session_id: str
    seq_id: int
    request: SampleRequest
    ends_as_the_model_does: bool = True
    prompt_logprobs_last_n: int | None = None
    target_layout: TargetLayout | None = None


Sequenced = ForwardBackward | OptimStep | SaveWeights | SaveForSampling | LoadWeights | Refused
"""The commands that have a place in their model's order: ``model_id`` and ``seq_id``."""
