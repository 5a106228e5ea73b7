"""Labels that clients attach to sessions, training runs and checkpoints."""

from collections.abc import Mapping


def texts(metadata: Mapping[str, object] | None) -> dict[str, str] | None:
    """Metadata as the SDK reads it back: texts only."""
    return None if metadata is None else {name: str(value) for name, value in metadata.items()}
