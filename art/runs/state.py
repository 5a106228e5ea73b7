"""The state of a model: values that its user's code must remember, in ``state.json``."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from art._internal.files import write_text
from art.errors import CheckpointError
from art.runs.file_errors import file_errors

STATE = "state.json"


def write_state(output_dir: Path, state: Mapping[str, Any]) -> None:
    """Write ``state.json``, replacing it in one step.

    Args:
        output_dir: The model's folder.
        state: Values that JSON can hold.

    Raises:
        TypeError: ``state`` has a value that JSON cannot hold; the file is as it was.
        art.errors.CheckpointError: The file cannot be written; it is as it was.
    """
    path = output_dir / STATE
    with file_errors(path, "written"):
        write_text(path, json.dumps(state, indent=2))


def read_state(output_dir: Path) -> dict[str, Any] | None:
    """Read ``state.json``.

    Args:
        output_dir: The model's folder.

    Returns:
        The state, or ``None`` where none was written.

    Raises:
        art.errors.CheckpointError: The file cannot be read, or does not hold a JSON object.
    """
    path = output_dir / STATE
    with file_errors(path, "read"):
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
    try:
        state = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is not JSON: {error}. Repair the file, or delete it."
        ) from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} must hold a JSON object. Repair the file, or delete it.")
    return state


def merge_state(output_dir: Path, updates: Mapping[str, Any]) -> dict[str, Any]:
    """Merge into ``state.json``; dicts within are merged too.

    Args:
        output_dir: The model's folder.
        updates: Values that JSON can hold.

    Returns:
        The whole state, as it was written.

    Raises:
        art.errors.CheckpointError: The file does not hold a JSON object, or cannot be written; it
            is as it was.
        TypeError: ``updates`` has a value that JSON cannot hold; the file is as it was.
    """
    merged = _deep_merge(read_state(output_dir) or {}, updates)
    write_state(output_dir, merged)
    return merged


def _deep_merge(base: Mapping[str, Any], updates: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in updates.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            merged[key] = _deep_merge(old, value)
        else:
            merged[key] = value
    return merged
