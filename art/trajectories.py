"""Trajectories of rollouts, and the groups whose rewards training compares."""

import time
import traceback
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Self,
    TypeAlias,
    TypedDict,
    TypeVar,
    Unpack,
    cast,
    overload,
)

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny, WrapSerializer

from art._internal.numbers import plain_number
from art.rollouts import PendingRollouts, Rollout, Tally, current_tally, discard, is_rollout
from art.types import Choice, Message, Messages, MessagesAndChoices, Tools, message_or_choice

T = TypeVar("T")

# Numbers of NumPy and torch are taken; on disk, and once a rollout is finished, they are Python's.
_Plain = Annotated[
    T,
    BeforeValidator(plain_number),
    # What was set was not validated.
    WrapSerializer(lambda value, serialize: serialize(plain_number(value))),
]
MetadataValue: TypeAlias = _Plain[float | int | str | bool | None]
MetricValue: TypeAlias = _Plain[float | int | bool]

# NaN and infinity have no JSON number; as strings they survive a round trip.
_AS_STRICT_JSON = ConfigDict(ser_json_inf_nan="strings")


class PydanticException(BaseModel):
    """An exception as text: its type, its message and its traceback."""

    type: str
    message: str
    traceback: str

    @classmethod
    def of(cls, error: BaseException) -> Self:
        """Describe an exception."""
        return cls(
            type=str(type(error)),
            message=str(error),
            traceback="".join(traceback.format_exception(error)),
        )


class History(BaseModel):
    """One conversation: messages, and the Choices that the model gave, in order."""

    model_config = _AS_STRICT_JSON

    messages_and_choices: MessagesAndChoices
    tools: Tools | None = None

    def messages(self) -> Messages:
        """Render the conversation as plain messages."""
        return get_messages(self.messages_and_choices)


class Trajectory(BaseModel):
    """One rollout: a conversation and its reward.

    Append a message as the dict that was sent, and a completion as the ``Choice`` that came back:
    its exact tokens are what training uses. Dicts are context only. Objects of a client, such as
    openai's ``ChatCompletionMessage``, may stand for dicts, and NumPy's and torch's numbers for
    Python's.

    A reward or a metric that is NaN or infinite is kept, and written as ``"NaN"`` or
    ``"Infinity"``; training leaves a trajectory without a finite reward out, and counts it.

    Attributes:
        messages_and_choices: The conversation.
        tools: The tools that the model was given.
        additional_histories: Further conversations with the same reward, such as a sub-agent's.
        reward: How good the rollout was; only differences within a group matter.
        initial_policy_version: The model's step when the rollout began.
        final_policy_version: The model's step when it ended.
        metrics: Numbers to average and log.
        metadata: What the rollout was about.
        logs: Lines added by :meth:`log`.
        start_time: When the object was made; not serialized.
    """

    model_config = _AS_STRICT_JSON

    messages_and_choices: MessagesAndChoices = []
    tools: Tools | None = None
    additional_histories: list[SerializeAsAny[History]] = []
    reward: _Plain[float] = 0.0
    initial_policy_version: int | None = None
    final_policy_version: int | None = None
    metrics: dict[str, MetricValue] = {}
    metadata: dict[str, MetadataValue] = {}
    logs: list[str] = []
    start_time: datetime = Field(default_factory=lambda: datetime.now(UTC), exclude=True)

    def log(self, message: str) -> None:
        """Add a line to ``logs``."""
        self.logs.append(message)

    def finish(self) -> Self:
        """Set the metric ``duration``, in seconds since the object was made.

        Returns:
            This trajectory.
        """
        self.metrics["duration"] = (datetime.now(UTC) - self.start_time).total_seconds()
        return self

    @asynccontextmanager
    async def track_duration(self, metric_name: str) -> AsyncIterator[None]:
        """Add the seconds that the block takes to the metric ``<metric_name>_duration``."""
        start = time.monotonic()
        try:
            yield
        finally:
            name = f"{metric_name}_duration"
            self.metrics[name] = self.metrics.get(name, 0.0) + time.monotonic() - start

    def messages(self) -> Messages:
        """Render the conversation as plain messages."""
        return get_messages(self.messages_and_choices)

    def for_logging(self) -> dict[str, Any]:
        """Render everything as plain values; each message says whether it is ``trainable``."""
        return {
            "reward": plain_number(self.reward),
            "initial_policy_version": self.initial_policy_version,
            "final_policy_version": self.final_policy_version,
            "metrics": _plain_numbers(self.metrics),
            "metadata": _plain_numbers(self.metadata),
            "messages": [
                {**item.message.to_dict(), "trainable": True}
                if isinstance(item, Choice)
                else {**item, "trainable": False}
                for item in map(message_or_choice, self.messages_and_choices)
            ],
            "tools": self.tools,
            "logs": self.logs,
        }

    def __str__(self) -> str:
        return f"Trajectory(reward={self.reward}, metrics={self.metrics}, metadata={self.metadata})"


def get_messages(messages_and_choices: MessagesAndChoices) -> Messages:
    """Turn Choices into assistant messages.

    Args:
        messages_and_choices: A conversation.

    Returns:
        Messages whose ``content`` is never ``None``, since chat templates want text.
    """
    messages: Messages = []
    for item in map(message_or_choice, messages_and_choices):
        if not isinstance(item, Choice):
            content = item.get("content")
            messages.append(cast(Message, {**item, "content": "" if content is None else content}))
            continue
        message: dict[str, Any] = {"role": "assistant", "content": item.message.content or ""}
        if item.message.tool_calls:
            message["tool_calls"] = [
                call.model_dump(mode="json") for call in item.message.tool_calls
            ]
        messages.append(cast(Message, message))
    return messages


def _plain_numbers(values: dict[str, Any]) -> dict[str, Any]:
    return {name: plain_number(value) for name, value in values.items()}


def finish_trajectory(result: Trajectory) -> Trajectory:
    """Check what a rollout returned, and set its metric ``completion_tokens``.

    Messages and numbers of other libraries are made plain. The metric is the mean number of tokens
    of the completions that carry logprobs; without any there is no such metric.

    Args:
        result: What a rollout returned.

    Returns:
        ``result``.

    Raises:
        TypeError: It is not a trajectory.
    """
    if not isinstance(result, Trajectory):
        raise TypeError(f"a rollout must return an art.Trajectory; it returned {result!r:.100}")
    histories: list[Trajectory | History] = [result, *result.additional_histories]
    for history in histories:
        history.messages_and_choices[:] = map(message_or_choice, history.messages_and_choices)
    result.reward = plain_number(result.reward)
    result.metrics.update(_plain_numbers(result.metrics))
    result.metadata.update(_plain_numbers(result.metadata))
    counts = [
        len(item.logprobs.content or item.logprobs.refusal or [])
        for item in result.messages_and_choices
        if isinstance(item, Choice) and item.logprobs
    ]
    if counts:
        result.metrics["completion_tokens"] = sum(counts) / len(counts)
    return result


class PendingTrajectoryGroup(PendingRollouts[Trajectory]):
    """A group whose rollouts have yet to run: ``await`` it to get the :class:`TrajectoryGroup`.

    Made by ``art.TrajectoryGroup(rollout(model, scenario) for _ in range(8))``.
    """

    def __init__(
        self,
        rollouts: Iterable[Rollout[Trajectory]],
        complete: "Callable[[list[Trajectory | Exception]], TrajectoryGroup]",
    ) -> None:
        super().__init__(rollouts)
        self._complete = complete

    async def run(self, tally: Tally) -> "TrajectoryGroup":
        """Run the rollouts.

        Args:
            tally: Counts rewards and failures, and says how many failures are allowed.

        Returns:
            The group: trajectories and exceptions in the order of the rollouts.
        """

        def finish(trajectory: Trajectory) -> Trajectory:
            tally.record([finish_trajectory(trajectory)])
            return trajectory

        return self._complete(await self.results(tally, finish))

    async def _run_in_context(self) -> "TrajectoryGroup":
        tally = current_tally()
        if tally is None:
            tally = Tally(max_exceptions=float("inf"))
        tally.expect(len(self))
        return await self.run(tally)

    def __await__(self) -> "Generator[Any, None, TrajectoryGroup]":
        return self._run_in_context().__await__()


class _GroupFields(TypedDict, total=False):
    exceptions: Iterable[BaseException | PydanticException]
    metadata: dict[str, MetadataValue] | None
    metrics: dict[str, MetricValue] | None
    logs: list[str] | None


def pending_group(
    group_type: "type[TrajectoryGroup]",
    rollouts: Iterable[Rollout[Trajectory]],
    **fields: Unpack[_GroupFields],
) -> PendingTrajectoryGroup:
    """Make a group whose rollouts have yet to run.

    Args:
        group_type: The class of the group that comes of it.
        rollouts: Awaitables of trajectories, or callables that give one.
        **fields: The group's other fields.

    Returns:
        An awaitable of the group.

    Raises:
        TypeError: A field is unknown. The rollouts are closed, as they are for the next error.
        pydantic.ValidationError: A field has a wrong type.
    """

    def complete(results: list[Trajectory | Exception]) -> TrajectoryGroup:
        given = {
            name: getattr(template, name)
            for name in group_type.model_fields
            if name != "trajectories"
        }
        return group_type(results, **cast(_GroupFields, given))

    pending = PendingTrajectoryGroup(rollouts, complete)
    try:
        # Made now, so that a wrong field is found before the rollouts run, not after.
        template = group_type((), **fields)
    except BaseException:
        pending.close()
        raise
    return pending


if TYPE_CHECKING:
    # Pydantic's metaclass has no public name.
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)


class _GroupType(ModelMetaclass):
    """The metaclass of :class:`TrajectoryGroup`: calling it with rollouts gives a pending group.

    Not ``__new__``: Python would hand the same arguments to ``__init__``, and a generator can be
    read only once. Type checkers read the overloads of ``__new__`` instead.
    """

    if not TYPE_CHECKING:

        def __call__(cls, trajectories, *args, **fields):
            items = list(trajectories)
            rollouts = [item for item in items if is_rollout(item)]
            if unknown := fields.keys() - cls.model_fields.keys():
                discard(rollouts)
                raise TypeError(f"{cls.__name__} has no field {', '.join(sorted(unknown))}")
            if not rollouts:
                return super().__call__(items, *args, **fields)
            if len(rollouts) < len(items):
                discard(rollouts)
                raise TypeError(
                    "TrajectoryGroup takes finished trajectories or rollouts that are yet to run, "
                    "not a mix of both"
                )
            return pending_group(cls, rollouts, *args, **fields)


class TrajectoryGroup(BaseModel, metaclass=_GroupType):
    """Trajectories of one scenario, whose rewards training compares.

    Made from finished trajectories, or from rollouts that are yet to run; the latter gives a
    :class:`PendingTrajectoryGroup`, and awaiting it gives the group::

        group = await art.TrajectoryGroup(rollout(model, scenario) for _ in range(8))

    A rollout that raises does not take the others with it: its exception is kept in
    ``exceptions``. Inside :func:`art.gather.gather_trajectory_groups` its ``max_exceptions``
    says how many may fail. Two things are never a failure of one rollout, and end all: being
    cancelled, and a :class:`art.errors.ConfigurationError`, which would be the same for each.

    Args:
        trajectories: Trajectories and exceptions, in any mix; or awaitables of trajectories; or
            callables that give one, which can be retried.
        exceptions: Further exceptions to keep.
        metadata: What the group is about.
        metrics: Numbers of the group as a whole.
        logs: Lines of text.
    """

    model_config = _AS_STRICT_JSON

    trajectories: list[SerializeAsAny[Trajectory]]
    exceptions: list[PydanticException] = []
    metadata: dict[str, MetadataValue] = {}
    metrics: dict[str, MetricValue] = {}
    logs: list[str] = []

    if TYPE_CHECKING:

        @overload
        def __new__(
            cls, trajectories: Iterable[Trajectory | BaseException], **fields: Unpack[_GroupFields]
        ) -> Self: ...

        @overload
        def __new__(  # type: ignore[misc]  # another class on purpose
            cls, trajectories: Iterable[Rollout[Trajectory]], **fields: Unpack[_GroupFields]
        ) -> PendingTrajectoryGroup: ...

        def __new__(cls, *args: Any, **fields: Any) -> Any: ...  # noqa: D102 - see the class

    def __init__(
        self,
        trajectories: Iterable[Trajectory | BaseException | Rollout[Trajectory]],
        *,
        exceptions: Iterable[BaseException | PydanticException] = (),
        metadata: dict[str, MetadataValue] | None = None,
        metrics: dict[str, MetricValue] | None = None,
        logs: list[str] | None = None,
        **fields: Any,  # those of a subclass
    ) -> None:
        items = list(trajectories)
        raised = [item for item in items if isinstance(item, BaseException)]
        super().__init__(
            trajectories=[item for item in items if not isinstance(item, BaseException)],
            exceptions=[
                PydanticException.of(item) if isinstance(item, BaseException) else item
                for item in (*raised, *exceptions)
            ],
            metadata=metadata or {},
            metrics=metrics or {},
            logs=logs or [],
            **fields,
        )

    def log(self, message: str) -> None:
        """Add a line to ``logs``."""
        self.logs.append(message)

    def __iter__(self) -> Iterator[Trajectory]:  # type: ignore[override]
        return iter(self.trajectories)

    def __len__(self) -> int:
        return len(self.trajectories)

    def __copy__(self) -> Self:
        # Its own lists, so that appending to the copy leaves the original as it was.
        copy = super().__copy__()
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, list | dict):
                setattr(copy, name, value.copy())
        return copy

    def __await__(self) -> Generator[Any, None, Self]:
        # A complete group may stand where an awaitable one may.
        return self
        yield
