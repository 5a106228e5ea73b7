"""The trajectories of a model: ``trajectories/<split>/<step>.jsonl``, one group a line."""

import json
import logging
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic_core import PydanticSerializationError, to_jsonable_python

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
        append_lines(path, [_line(group) for group in groups])


def read_trajectory_groups(path: Path) -> list[TrajectoryGroup]:
    """Read what :func:`append_trajectory_groups` wrote, Choices with their token ids included.

    Fields of a subclass are on disk, and left out here. A line that a crash cut short is left out,
    with a warning.

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
            groups.append(_group(line))
        except (ValueError, TypeError, RecursionError):
            logger.warning("%s: line %d is incomplete and was left out", path, number)
    return groups


def _line(group: TrajectoryGroup) -> str:
    try:
        line = group.model_dump_json()
    except PydanticSerializationError as error:
        if "surrogate" not in str(error):
            raise
    else:
        # In names, such as those of metrics, pydantic replaces it instead.
        if "\ufffd" not in line:
            return line
    # Text may hold half of a surrogate pair, which UTF-8 has not; JSON can say it as an escape.
    return json.dumps(_json_value(group.model_dump()), allow_nan=False, separators=(",", ":"))


def _json_value(value: Any) -> Any:
    """Turn plain values into those that JSON has, as pydantic does."""
    if isinstance(value, Mapping):
        return {str(name): _json_value(each) for name, each in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Iterable):
        return [_json_value(each) for each in value]
    return to_jsonable_python(value)


def _group(line: bytes) -> TrajectoryGroup:
    # Not pydantic's parser: it refuses the escape of half a surrogate pair.
    fields = json.loads(line)
    # A subclass of TrajectoryGroup may have written fields of its own.
    known = {name: fields[name] for name in TrajectoryGroup.model_fields if name in fields}
    return TrajectoryGroup.model_validate(known)
