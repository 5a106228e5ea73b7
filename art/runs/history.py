"""A model's files: the rows of ``history.jsonl``, trajectories per split and step, the state."""

import json
import logging
import math
import os
import tempfile
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from art.errors import CheckpointError
from art.runs.paths import path_component

if TYPE_CHECKING:
    from art.trajectories import TrajectoryGroup

logger = logging.getLogger(__name__)

HISTORY = "history.jsonl"
STATE = "state.json"


def append_history(output_dir: Path, metrics: Mapping[str, float], step: int) -> None:
    """Append one row of metrics.

    The row is one write to a file opened for appending, so that processes may share the file. A
    row that a crash cut short is closed off first.

    Args:
        output_dir: The model's folder.
        metrics: Numbers by name. JSON has no NaN and no infinity: these are left out.
        step: The training step that they belong to.

    Raises:
        OSError: The file cannot be written.
    """
    row: dict[str, object] = {
        name: value for name, value in metrics.items() if math.isfinite(value)
    }
    row |= {"step": step, "recorded_at": datetime.now().isoformat()}
    _append_lines(output_dir / HISTORY, json.dumps(row, allow_nan=False) + "\n")


def read_history(output_dir: Path) -> list[dict[str, Any]]:
    """Read all rows of metrics.

    Args:
        output_dir: The model's folder.

    Returns:
        The rows, oldest first; none where there is no file. A row that a crash cut short is
        left out, with a warning.
    """
    path = output_dir / HISTORY
    if not path.exists():
        return []
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            row = json.loads(line)
        except ValueError:
            logger.warning("%s: line %d is incomplete and was left out", path, number)
        else:
            if isinstance(row, dict):
                rows.append(row)
    return rows


def best_step(rows: Iterable[Mapping[str, Any]], metric: str) -> int | None:
    """The step with the greatest mean of a metric.

    Args:
        rows: Rows of :func:`read_history`.
        metric: A metric's full name, such as ``"val/reward"``.

    Returns:
        The step, the latest of equally good ones; ``None`` where no row has the metric.
    """
    values: dict[int, list[float]] = {}
    for row in rows:
        if isinstance(value := row.get(metric), int | float):
            values.setdefault(row["step"], []).append(value)
    return max(
        values, key=lambda step: (math.fsum(values[step]) / len(values[step]), step), default=None
    )


def trajectories_path(output_dir: Path, split: str, step: int) -> Path:
    """The file of one step's trajectories of one split.

    Raises:
        art.errors.ConfigurationError: The split's name is not safe as a component of a path.
    """
    return output_dir / "trajectories" / path_component("split", split) / f"{step:04d}.jsonl"


def append_trajectory_groups(path: Path, groups: Iterable["TrajectoryGroup"]) -> None:
    """Append groups as JSON, one a line.

    A step can be logged more than once: it is not over when every group was dropped. So nothing
    that was logged before is replaced.

    Args:
        path: The file; see :func:`trajectories_path`.
        groups: What to append.

    Raises:
        OSError: The file cannot be written; what was there before is intact.
    """
    _append_lines(path, "".join(group.model_dump_json() + "\n" for group in groups))


def read_trajectory_groups(path: Path) -> list["TrajectoryGroup"]:
    """Read what :func:`append_trajectory_groups` wrote, Choices with their token ids included.

    A line that a crash cut short is left out, with a warning.
    """
    from art.trajectories import TrajectoryGroup

    groups = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line:
            continue
        try:
            groups.append(TrajectoryGroup.model_validate_json(line))
        except ValueError:
            logger.warning("%s: line %d is incomplete and was left out", path, number)
    return groups


def write_state(output_dir: Path, state: Mapping[str, Any]) -> None:
    """Write ``state.json``, replacing it in one step.

    Raises:
        TypeError: ``state`` has a value that JSON cannot hold; the file is as it was.
        OSError: The file cannot be written; it is as it was.
    """
    _replace(output_dir / STATE, json.dumps(state, indent=2))


def read_state(output_dir: Path) -> dict[str, Any] | None:
    """Read ``state.json``.

    Returns:
        The state, or ``None`` where none was written.

    Raises:
        art.errors.CheckpointError: The file does not hold a JSON object.
    """
    path = output_dir / STATE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        state = json.loads(text)
    except ValueError as error:
        raise CheckpointError(
            f"{path} is not JSON: {error}. Repair the file, or delete it."
        ) from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} must hold a JSON object. Repair the file, or delete it.")
    return state


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _append_lines(path: Path, lines: str) -> None:
    """Append whole lines in one write, after closing off a line that a crash cut short."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = lines.encode()
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                data = b"\n" + data
        file.write(data)
