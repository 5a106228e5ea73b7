"""The trajectories of a model: ``trajectories/<split>/<step>.jsonl``, one group a line."""

import logging
from collections.abc import Iterable
from pathlib import Path

from art._internal.files import append_lines
from art.runs.file_errors import file_errors
from art.runs.paths import path_component
from art.trajectories import TrajectoryGroup

logger = logging.getLogger(__name__)


def trajectories_path(output_dir: Path, split: str, step: int) -> Path:
    """Build the path of one step's trajectories of one split.

    Raises:
        art.errors.ConfigurationError: The split's name is not safe as a component of a path.
    """
    return output_dir / "trajectories" / path_component("split", split) / f"{step:04d}.jsonl"


def append_trajectory_groups(path: Path, groups: Iterable[TrajectoryGroup]) -> None:
    """Append groups as JSON, one a line.

    A step can be logged more than once: it is not over when every group was dropped. So nothing
    that was logged before is replaced.

    Args:
        path: The file; see :func:`trajectories_path`.
        groups: What to append.

    Raises:
        art.errors.CheckpointError: The file cannot be written; what was there before is intact.
    """
    with file_errors(path, "written"):
        append_lines(path, [group.model_dump_json() for group in groups])


def read_trajectory_groups(path: Path) -> list[TrajectoryGroup]:
    """Read what :func:`append_trajectory_groups` wrote, Choices with their token ids included.

    A line that a crash cut short is left out, with a warning.

    Args:
        path: The file; see :func:`trajectories_path`.

    Returns:
        The groups, in the order in which they were written.

    Raises:
        FileNotFoundError: There is no such file.
    """
    groups = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line:
            continue
        try:
            groups.append(TrajectoryGroup.model_validate_json(line))
        except ValueError:
            logger.warning("%s: line %d is incomplete and was left out", path, number)
    return groups
