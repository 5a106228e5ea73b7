"""Errors of a run's files, as art's own."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from art.errors import CheckpointError


@contextmanager
def file_errors(path: Path, doing: str) -> Iterator[None]:
    """Raise an ``OSError`` of the block as :class:`art.errors.CheckpointError`, which is one too.

    Args:
        path: The file or folder; for the message.
        doing: Such as ``"written"``.

    Raises:
        art.errors.CheckpointError: The block raised an ``OSError``.
    """
    try:
        yield
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be {doing}: {error}. Check the permissions of its folder, and that the "
            "disk has free space"
        ) from error
