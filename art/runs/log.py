"""Logging of a model's run: the protocol that ``model.log`` writes through, and its files."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, cast

from art.runs.history import append_metrics
from art.runs.trajectories import append_trajectory_groups, trajectories_path
from art.trajectories import Trajectory, TrajectoryGroup


class RunLogger(Protocol):
    """Records what ``model.log`` is given. Its methods are called from worker threads."""

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Record one row of metrics.

        Args:
            metrics: Numbers by full name, such as ``"train/reward"``; some may not be finite.
            step: The training step that they belong to.
        """
        ...

    def log_trajectories(self, groups: Sequence[TrajectoryGroup], *, split: str, step: int) -> None:
        """Record trajectories.

        Args:
            groups: The groups.
            split: Such as ``"train"``; safe as a component of a path.
            step: The training step that they belong to.
        """
        ...


class FileLogger:
    """Records a run in its model's folder: ``history.jsonl`` and ``trajectories/``.

    Args:
        output_dir: The model's folder. It is made where it is absent.
    """

    def __init__(self, output_dir: Path) -> None:
        self._output_dir = output_dir

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Append one row to ``history.jsonl``.

        Args:
            metrics: Numbers by full name. JSON has no NaN and no infinity: these are left out.
            step: The training step that they belong to.

        Raises:
            art.errors.CheckpointError: The file cannot be written.
        """
        append_metrics(self._output_dir, metrics, step)

    def log_trajectories(self, groups: Sequence[TrajectoryGroup], *, split: str, step: int) -> None:
        """Append groups to ``trajectories/<split>/<step>.jsonl``.

        Args:
            groups: The groups.
            split: Such as ``"train"``.
            step: The training step that they belong to.

        Raises:
            art.errors.ConfigurationError: The split's name is not safe as a component of a path.
            art.errors.CheckpointError: The file cannot be written.
        """
        append_trajectory_groups(trajectories_path(self._output_dir, split, step), groups)


def as_groups(
    trajectories: Iterable[Trajectory | BaseException] | Iterable[TrajectoryGroup],
) -> list[TrajectoryGroup]:
    """Take what ``model.log`` is given as groups.

    Args:
        trajectories: Groups, or one; or trajectories and exceptions, which become one group.

    Raises:
        TypeError: Groups are mixed with something else.
    """
    if isinstance(trajectories, TrajectoryGroup):
        return [trajectories]
    items = list(trajectories)
    if all(isinstance(item, TrajectoryGroup) for item in items):
        return cast("list[TrajectoryGroup]", items)
    if all(isinstance(item, Trajectory | BaseException) for item in items):
        return [TrajectoryGroup(cast("list[Trajectory | BaseException]", items))]
    raise TypeError(
        "log takes TrajectoryGroups, or Trajectories and exceptions, not a mix; this has "
        + ", ".join(sorted({type(item).__name__ for item in items}))
    )
