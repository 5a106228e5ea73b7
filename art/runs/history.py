"""The history of a model: rows of metrics in ``history.jsonl``, one for each call of model.log."""

import json
import logging
import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from art._internal.files import append_lines
from art.runs.file_errors import file_errors

logger = logging.getLogger(__name__)

HISTORY = "history.jsonl"


def append_metrics(output_dir: Path, metrics: Mapping[str, float], step: int) -> None:
    """Append one row of metrics.

    The row is one write to a file opened for appending, so that processes may share the file. A
    row that a crash cut short is closed off first.

    Args:
        output_dir: The model's folder.
        metrics: Numbers by name. JSON has no NaN and no infinity: these are left out.
        step: The training step that they belong to.

    Raises:
        art.errors.CheckpointError: The file cannot be written.
    """
    row: dict[str, object] = {
        name: value for name, value in metrics.items() if math.isfinite(value)
    }
    row |= {"step": step, "recorded_at": datetime.now().isoformat()}
    path = output_dir / HISTORY
    with file_errors(path, "written"):
        append_lines(path, [json.dumps(row, allow_nan=False)])


def read_history(output_dir: Path) -> list[dict[str, Any]]:
    """Read all rows of metrics.

    Args:
        output_dir: The model's folder.

    Returns:
        The rows, oldest first; none where there is no file. A row that a crash cut short is
        left out, with a warning.

    Raises:
        art.errors.CheckpointError: The file cannot be read.
    """
    path = output_dir / HISTORY
    with file_errors(path, "read"):
        data = path.read_bytes() if path.exists() else b""
    rows = []
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            logger.warning("%s: line %d is incomplete and was left out", path, number)
        else:
            if isinstance(row, dict):
                rows.append(row)
    return rows


def best_step(rows: Iterable[Mapping[str, Any]], metric: str) -> int | None:
    """Find the step with the greatest mean of a metric.

    Args:
        rows: Rows of :func:`read_history`.
        metric: A metric's full name, such as ``"val/reward"``.

    Returns:
        The step, the latest of equally good ones; ``None`` where no row has the metric.
    """
    values: dict[int, list[float]] = {}
    for row in rows:
        value, step = row.get(metric), row.get("step")
        if isinstance(value, int | float) and isinstance(step, int):
            values.setdefault(step, []).append(value)
    return max(
        values, key=lambda step: (math.fsum(values[step]) / len(values[step]), step), default=None
    )
