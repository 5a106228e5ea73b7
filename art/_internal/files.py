"""Files and folders that are written whole or not at all, and files that grow by whole lines.

What is written whole is written under a temporary name beside its place, flushed to disk and
renamed, so that whoever can see the name sees all of it, also after a crash. Temporary names begin
with :data:`TEMPORARY`.
"""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

TEMPORARY = ".tmp-"


def write_text(path: Path, text: str) -> None:
    """Write a text file (UTF-8, ``\\n``) in place of what was there.

    Args:
        path: The file. Its folder is made where it is absent.
        text: What to write.

    Raises:
        OSError: It cannot be written; what was there is intact.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_beside(path)
    try:
        with temporary.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


def append_lines(path: Path, lines: Iterable[str]) -> None:
    """Append lines (UTF-8) in one write, so that processes may share the file.

    A line that a crash cut short is closed off first: whoever reads the file loses that line alone.

    Args:
        path: The file. It and its folder are made where they are absent.
        lines: Lines without their ends.

    Raises:
        OSError: It cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(f"{line}\n" for line in lines).encode()
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                data = b"\n" + data
        file.write(data)


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Fill a folder that does not exist yet.

    ::

        with new_folder(path) as temporary:
            (temporary / "config.json").write_text(...)

    Args:
        folder: Its place. The folder above is made where it is absent.

    Yields:
        An empty folder. When the block ends its files are flushed and it takes its place; when
        the block raises it is removed.

    Raises:
        OSError: It cannot be written, or a folder that is not empty stands in its place.
    """
    temporary = _temporary_beside(folder)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        flush_files(temporary)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    flush_folder(folder.parent)


def remove_folder(folder: Path) -> None:
    """Remove a folder; half of it is never seen under its name.

    Raises:
        FileNotFoundError: There is none.
        OSError: It cannot be removed.
    """
    doomed = _temporary_beside(folder)
    folder.rename(doomed)
    shutil.rmtree(doomed)


def remove(path: Path) -> None:
    """Remove a folder with all that is in it, a file, or a link; none is no error.

    Raises:
        OSError: It cannot be removed.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def link_or_copy(source: Path, target: Path) -> None:
    """Put a file in a second place; its bytes stand once on disks that can do that.

    Raises:
        OSError: It cannot be read, or not be written.
    """
    try:
        target.hardlink_to(source)
    except OSError:  # another disk, or a file system without links
        shutil.copy2(source, target)


def flush_files(folder: Path) -> None:
    """Flush the files of a folder, and their names, to disk."""
    for file in folder.iterdir():
        if file.is_file():
            with file.open("rb+") as stream:
                os.fsync(stream.fileno())
    flush_folder(folder)


def flush_folder(folder: Path) -> None:
    """Flush a folder's names to disk."""
    if os.name == "nt":  # Windows cannot open a folder, and flushes its names by itself
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _temporary_beside(path: Path) -> Path:
    # Not the tempfile module: what it makes is private to its owner, whatever the umask says.
    return path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
