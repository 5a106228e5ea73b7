"""Checkpoints on disk.

``<root>/checkpoints/<run>/{weights,sampler_weights,external_weights}/<name>/`` holds one
checkpoint: a PEFT adapter folder, ``metadata.json``, and the optimizer's state under ``weights``.
A checkpoint is written into a scratch folder, flushed to disk and renamed: a name that can be seen
is whole, and what a killed engine was writing goes with its scratch folder. Engines that share a
root change names under one lock.
"""

import contextlib
import errno
import logging
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

from filelock import FileLock, Timeout

from art._internal import files
from art._internal.scratch import ScratchFolder
from art.engine.checkpoint_metadata import (
    METADATA_FILE,
    Checkpoint,
    TrainingRun,
    read_metadata,
    to_json,
)
from art.errors import CheckpointError, InvalidRequestError, NotFoundError
from art.formats.checkpoint_paths import (
    NAME,
    CheckpointPath,
    Kind,
    checkpoints_folder,
    run_id_of_folder,
)

logger = logging.getLogger(__name__)

_LOCK = "checkpoints.lock"
_LOCK_S = 60.0
_REPLACED = ".old-"
_TTL_RANGE_S = (3600, 10 * 366 * 24 * 3600)


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
            self._lock = FileLock(root / _LOCK, timeout=_LOCK_S)
            with self._locked():
                self._recover()
                self._scratch = ScratchFolder(root)
        except CheckpointError:
            raise
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
        temporary = self._scratch.new()
        try:
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
            (temporary / METADATA_FILE).write_text(to_json(checkpoint), encoding="utf-8")
            files.flush_files(temporary)
            with self._locked():
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
            folder = self._scratch.new()
            try:
                fill(folder)
            except Exception:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        except Exception as error:
            raise _write_error("the sampler's adapter", error) from error
        return folder

    def pin(self, path: CheckpointPath) -> tuple[Checkpoint, Path]:
        """Give a checkpoint's files a second place, which no change of its name touches.

        Returns:
            The checkpoint, and a folder with its files: links where the disk can do that, or else
            copies. :meth:`delete_unnamed` removes it.

        Raises:
            NotFoundError: There is none of that name.
            CheckpointError: It cannot be read.
        """
        pinned = self._scratch.new()
        try:
            with self._locked():
                checkpoint, folder = self.read(path)
                for file in folder.iterdir():
                    files.link_or_copy(file, pinned / file.name)
        except OSError as error:
            shutil.rmtree(pinned, ignore_errors=True)
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"{path} cannot be read: {error}") from error
        except NotFoundError:
            shutil.rmtree(pinned, ignore_errors=True)
            raise
        return checkpoint, pinned

    def delete_unnamed(self, folder: Path) -> None:
        """Remove a folder that :meth:`write_unnamed` or :meth:`pin` made."""
        shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Remove what has no name. The checkpoints stay."""
        self._scratch.close()

    def read(self, path: CheckpointPath) -> tuple[Checkpoint, Path]:
        """Find a checkpoint.

        Returns:
            What it is, and its folder.

        Raises:
            NotFoundError: There is none of that name.
            CheckpointError: Its metadata cannot be read.
        """
        folder = self._folder_of(path)
        return read_metadata(folder, path), folder

    def list(self, run_id: str | None = None) -> list[Checkpoint]:
        """All checkpoints, or those of one training run, the newest first."""
        found: list[Checkpoint] = []
        for path in self._paths():
            if run_id is not None and path.run_id != run_id:
                continue
            try:
                found.append(read_metadata(self._folder_of(path), path))
            except (CheckpointError, NotFoundError) as error:
                logger.warning("left %s out of the list: %s", path, error)
        return sorted(found, key=lambda checkpoint: checkpoint.created, reverse=True)

    def delete(self, path: CheckpointPath) -> None:
        """Delete a checkpoint.

        Raises:
            NotFoundError: There is none of that name.
            CheckpointError: It cannot be deleted.
        """
        folder = self._folder_of(path)
        doomed = self._scratch.path / uuid.uuid4().hex
        try:
            with self._locked():
                folder.rename(doomed)
                _remove_if_empty(folder.parent, folder.parent.parent)
            files.remove(doomed)
        except CheckpointError:
            raise
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
        expires = _expiry(ttl_seconds)
        with self._locked():
            checkpoint, _ = self.read(path)
            self._rewrite(replace(checkpoint, expires=expires))

    def set_project(self, run_id: str, project_id: str) -> None:
        """Move the checkpoints of a training run into a project.

        Raises:
            CheckpointError: The metadata cannot be written.
        """
        with self._locked():
            for checkpoint in self.list(run_id):
                run = replace(checkpoint.run, project_id=project_id)
                self._rewrite(replace(checkpoint, run=run))

    def copy(
        self, source: CheckpointPath, run_id: str, project_id: str, *, ttl_seconds: int | None
    ) -> Checkpoint:
        """Give a checkpoint a second name, in a training run of its own.

        The files are shared where the disk can do that. The copy neither expires nor is deleted
        with the source.

        Args:
            source: The checkpoint.
            run_id: The training run of the copy. If it has the copy already, that is the answer.
            project_id: The project of that run.
            ttl_seconds: Delete the copy after so many seconds; ``None`` is never.

        Raises:
            NotFoundError: There is no such checkpoint.
            InvalidRequestError: The time to live is out of range.
            CheckpointError: It cannot be read or written.
        """
        target = CheckpointPath(run_id, source.kind, source.name)
        with contextlib.suppress(NotFoundError):
            return self.read(target)[0]
        checkpoint, folder = self.read(source)

        def fill(copy: Path) -> None:
            with self._locked():
                for file in folder.iterdir():
                    if file.name != METADATA_FILE:
                        files.link_or_copy(file, copy / file.name)

        return self.write(
            target,
            replace(checkpoint.run, run_id=run_id, project_id=project_id),
            fill,
            overwrite=False,
            user_metadata=checkpoint.user_metadata,
            ttl_seconds=ttl_seconds,
        )

    def delete_expired(self) -> None:
        """Delete the checkpoints whose time is over."""
        now = datetime.now(UTC)
        for checkpoint in self.list():
            if checkpoint.expires is not None and checkpoint.expires <= now:
                logger.info("deleting %s, which has expired", checkpoint.path)
                self.delete(checkpoint.path)

    def _rewrite(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint's record again."""
        try:
            files.write_text(self._folder_of(checkpoint.path) / METADATA_FILE, to_json(checkpoint))
        except OSError as error:
            raise _write_error(checkpoint.path, error) from error

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self._lock.acquire()
        except Timeout as error:
            raise CheckpointError(
                f"another engine has held {self._lock.lock_file} for {_LOCK_S:.0f} s; end it, or "
                "give this one a root of its own"
            ) from error
        try:
            yield
        finally:
            self._lock.release()

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
        final.parent.mkdir(parents=True, exist_ok=True)
        files.remove(replaced)
        if final.exists() or final.is_symlink():
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
        files.remove(replaced)

    def _recover(self) -> None:
        """Finish what a killed engine had begun. Whatever cannot be is left, with a warning."""
        for leftover in list(self._folder.glob("*/*/.[to]*")):
            try:
                self._recover_one(leftover)
            except OSError as error:
                logger.warning("left %s as it is: %s", leftover, error)
        for run_folder in self._folder.iterdir():
            if run_id_of_folder(run_folder.name) is not None:
                _remove_if_empty(*(run_folder / kind for kind in get_args(Kind)), run_folder)

    def _recover_one(self, leftover: Path) -> None:
        if not leftover.name.startswith(_REPLACED):
            if leftover.name.startswith(files.TEMPORARY):
                files.remove(leftover)
            return
        final = leftover.parent / leftover.name.removeprefix(_REPLACED)
        if final.exists() or final.is_symlink():
            files.remove(leftover)
        else:
            leftover.rename(final)


def _remove_if_empty(*folders: Path) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):  # it is not empty, or not there
            folder.rmdir()


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
