"""Checkpoints on disk.

``<root>/checkpoints/<run>/{weights,sampler_weights}/<name>/`` holds one checkpoint: a PEFT
adapter folder, ``metadata.json``, and the optimizer's state under ``weights``. A checkpoint is
written to a temporary sibling, flushed to disk and renamed, so a name that can be seen is whole.
"""

import errno
import json
import logging
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

from art._internal import files
from art._internal.scratch import ScratchFolder
from art.errors import CheckpointError, InvalidRequestError, NotFoundError
from art.executors.types import LoraConfig
from art.formats.checkpoint_paths import (
    NAME,
    CheckpointPath,
    Kind,
    checkpoints_folder,
    run_id_of_folder,
)

logger = logging.getLogger(__name__)

_METADATA = "metadata.json"
_REPLACED = ".old-"
_ABANDONED_AFTER_S = 3600.0
_TTL_RANGE_S = (3600, 10 * 366 * 24 * 3600)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """The record that all checkpoints of one model share."""

    run_id: str
    base_model: str
    lora: LoraConfig
    user_metadata: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One checkpoint on disk.

    Attributes:
        path: Where it is.
        run: The training run that it is from.
        version: Differs between checkpoints that had the same name one after the other.
        created: When it was written, UTC.
        size_bytes: The size of its files, without the metadata.
        has_optimizer: Whether training can go on exactly from it.
        user_metadata: What the client attached to it.
        expires: When it may be deleted, UTC; ``None`` is never.
    """

    path: CheckpointPath
    run: TrainingRun
    version: str
    created: datetime
    size_bytes: int
    has_optimizer: bool
    user_metadata: Mapping[str, object] | None = None
    expires: datetime | None = None


class CheckpointStore:
    """The checkpoints under one folder. Its methods block; call them off the event loop.

    Args:
        root: The engine's folder; it is made when it is absent.

    Raises:
        CheckpointError: The folder cannot be made or read.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder = checkpoints_folder(root)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._recover()
            self._unnamed = ScratchFolder(root)
        except OSError as error:
            raise CheckpointError(f"cannot use the checkpoint folder {root}: {error}") from error

    def write(
        self,
        path: CheckpointPath,
        run: TrainingRun,
        fill: Callable[[Path], None],
        *,
        overwrite: bool,
        user_metadata: Mapping[str, object] | None = None,
        ttl_seconds: int | None = None,
    ) -> Checkpoint:
        """Write one checkpoint, whole or not at all.

        Args:
            path: Its name.
            run: The training run that it is from.
            fill: Writes the files into an empty folder.
            overwrite: Whether a checkpoint of the same name may be replaced.
            user_metadata: What the client attaches to it.
            ttl_seconds: Delete it after so many seconds; ``None`` is never.

        Raises:
            InvalidRequestError: The name is taken and may not be replaced, or the time to live
                is out of range.
            CheckpointError: It could not be written; the disk is as it was before.
        """
        final = self._folder_of(path)
        expires = _expiry(ttl_seconds)
        if final.exists() and not overwrite:
            raise InvalidRequestError(f"{path} exists; pass overwrite=True to replace it")
        temporary = final.parent / f"{files.TEMPORARY}{uuid.uuid4().hex}"
        try:
            temporary.mkdir(parents=True)
            fill(temporary)
            checkpoint = Checkpoint(
                path=path,
                run=run,
                version=uuid.uuid4().hex,
                created=datetime.now(UTC),
                size_bytes=sum(file.stat().st_size for file in temporary.iterdir()),
                has_optimizer=path.kind == "weights",
                user_metadata=user_metadata,
                expires=expires,
            )
            (temporary / _METADATA).write_text(_to_json(checkpoint), encoding="utf-8")
            files.flush_files(temporary)
            self._move_into_place(temporary, final)
        except Exception as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise _write_error(path, error) from error
        return checkpoint

    def write_unnamed(self, fill: Callable[[Path], None]) -> Path:
        """Write an adapter that has no name, and that lives no longer than this store.

        Args:
            fill: Writes the files into an empty folder.

        Returns:
            The folder; its name is unique. :meth:`delete_unnamed` removes it.

        Raises:
            CheckpointError: It could not be written.
        """
        try:
            folder = self._unnamed.new()
            try:
                fill(folder)
            except Exception:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        except Exception as error:
            raise _write_error("the sampler's adapter", error) from error
        return folder

    def delete_unnamed(self, folder: Path) -> None:
        """Remove a folder that :meth:`write_unnamed` made."""
        shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Remove what has no name. The checkpoints stay."""
        self._unnamed.close()

    def read(self, path: CheckpointPath) -> tuple[Checkpoint, Path]:
        """Find a checkpoint.

        Returns:
            What it is, and its folder.

        Raises:
            NotFoundError: There is none of that name.
            CheckpointError: Its metadata cannot be read.
        """
        folder = self._folder_of(path)
        return _read_metadata(folder, path), folder

    def list(self, run_id: str | None = None) -> list[Checkpoint]:
        """All checkpoints, or those of one training run, the newest first."""
        found: list[Checkpoint] = []
        for path in self._paths():
            if run_id is not None and path.run_id != run_id:
                continue
            try:
                found.append(_read_metadata(self._folder_of(path), path))
            except (CheckpointError, NotFoundError) as error:
                logger.warning("left %s out of the list: %s", path, error)
        return sorted(found, key=lambda checkpoint: checkpoint.created, reverse=True)

    def delete(self, path: CheckpointPath) -> None:
        """Delete a checkpoint.

        Raises:
            NotFoundError: There is none of that name.
            CheckpointError: It cannot be deleted.
        """
        try:
            files.remove_folder(self._folder_of(path))
        except FileNotFoundError as error:
            raise NotFoundError(f"there is no checkpoint {path}") from error
        except OSError as error:
            raise CheckpointError(f"cannot delete {path}: {error}") from error

    def set_ttl(self, path: CheckpointPath, ttl_seconds: int | None) -> None:
        """Let a checkpoint expire so many seconds from now; ``None`` keeps it.

        Raises:
            NotFoundError: There is none of that name.
            InvalidRequestError: The time to live is out of range.
            CheckpointError: The metadata cannot be written.
        """
        checkpoint, folder = self.read(path)
        changed = replace(checkpoint, expires=_expiry(ttl_seconds))
        try:
            files.write_text(folder / _METADATA, _to_json(changed))
        except OSError as error:
            raise _write_error(path, error) from error

    def delete_expired(self) -> None:
        """Delete the checkpoints whose time is over."""
        now = datetime.now(UTC)
        for checkpoint in self.list():
            if checkpoint.expires is not None and checkpoint.expires <= now:
                logger.info("deleting %s, which has expired", checkpoint.path)
                self.delete(checkpoint.path)

    def _folder_of(self, path: CheckpointPath) -> Path:
        return path.folder(self._root)

    def _paths(self) -> Iterator[CheckpointPath]:
        for run_folder in self._folder.iterdir():
            run_id = run_id_of_folder(run_folder.name)
            if run_id is None:
                continue
            for kind in get_args(Kind):
                kind_folder = run_folder / kind
                for folder in kind_folder.iterdir() if kind_folder.is_dir() else ():
                    if NAME.fullmatch(folder.name):
                        yield CheckpointPath(run_id, kind, folder.name)

    def _move_into_place(self, temporary: Path, final: Path) -> None:
        replaced = final.parent / f"{_REPLACED}{final.name}"
        shutil.rmtree(replaced, ignore_errors=True)
        if final.exists():
            # A folder cannot be renamed over another. Should we die between the two renames,
            # `_recover` puts the old one back.
            final.rename(replaced)
        try:
            temporary.rename(final)
        except OSError:
            if replaced.exists():
                replaced.rename(final)
            raise
        for folder in (final.parent, final.parent.parent, self._folder):
            files.flush_folder(folder)
        shutil.rmtree(replaced, ignore_errors=True)

    def _recover(self) -> None:
        for leftover in self._folder.glob("*/*/.[to]*"):
            if leftover.name.startswith(_REPLACED):
                final = leftover.parent / leftover.name.removeprefix(_REPLACED)
                if final.exists():
                    shutil.rmtree(leftover)
                else:
                    leftover.rename(final)
            # Another engine may be writing here at this moment, so only old ones go.
            elif time.time() - leftover.stat().st_mtime > _ABANDONED_AFTER_S:
                shutil.rmtree(leftover, ignore_errors=True)


def _expiry(ttl_seconds: int | None) -> datetime | None:
    if ttl_seconds is None:
        return None
    low, high = _TTL_RANGE_S
    if not low <= ttl_seconds <= high:
        raise InvalidRequestError(f"ttl_seconds is {ttl_seconds}; use {low} (an hour) to {high}")
    return datetime.now(UTC) + timedelta(seconds=ttl_seconds)


def _write_error(what: CheckpointPath | str, error: Exception) -> Exception:
    # safetensors reports a full disk as an error of its own, with the system's number in it.
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or "os error 28" in str(error):
        return CheckpointError(
            f"the disk is full: {what} was not written; earlier checkpoints are intact. "
            "Free some space and save again"
        )
    if isinstance(error, InvalidRequestError | NotFoundError):
        return error
    return CheckpointError(f"{what} was not written: {error}; earlier checkpoints are intact")


def _to_json(checkpoint: Checkpoint) -> str:
    fields = {
        "format": 1,
        "path": str(checkpoint.path),
        "version": checkpoint.version,
        "created": checkpoint.created.isoformat(),
        "size_bytes": checkpoint.size_bytes,
        "has_optimizer": checkpoint.has_optimizer,
        "user_metadata": checkpoint.user_metadata,
        "expires": checkpoint.expires and checkpoint.expires.isoformat(),
        "base_model": checkpoint.run.base_model,
        "lora": asdict(checkpoint.run.lora),
        "run_user_metadata": checkpoint.run.user_metadata,
    }
    return json.dumps(fields, indent=2)


def _read_metadata(folder: Path, path: CheckpointPath) -> Checkpoint:
    try:
        fields = json.loads((folder / _METADATA).read_text(encoding="utf-8"))
        run = TrainingRun(
            run_id=path.run_id,
            base_model=fields["base_model"],
            lora=LoraConfig(**fields["lora"]),
            user_metadata=fields["run_user_metadata"],
        )
        return Checkpoint(
            path=path,
            run=run,
            version=fields["version"],
            created=datetime.fromisoformat(fields["created"]),
            size_bytes=fields["size_bytes"],
            has_optimizer=fields["has_optimizer"],
            user_metadata=fields["user_metadata"],
            expires=fields["expires"] and datetime.fromisoformat(fields["expires"]),
        )
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(f"there is no checkpoint {path}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"the metadata of {path} cannot be read: {error}") from error
