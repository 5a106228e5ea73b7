"""Hugging Face checkpoints on disk: safetensors files, read in slices and written one by one.

Tensors have any shape.
"""

import json
import os
from collections.abc import Mapping, Set
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from art.errors import CheckpointError

from .layout import Selection, index_of

INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


class CheckpointReader:
    """A reader of a checkpoint's tensors. Only the parts that are asked for are read.

    The index alone says which file holds a tensor: another file may have an older copy of it.

    Args:
        folder: A folder with ``model.safetensors``, or with several files and their index.

    Raises:
        CheckpointError: There is no checkpoint, a file of it is missing or cut short, or has not
            the tensors that the index names.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, Any] = {}
        self._file_of: dict[str, str] = {}
        with ExitStack() as stack:
            for name, tensors in _tensors_of_files(folder).items():
                self._open(name, tensors, stack)
            self._stack = stack.pop_all()

    def _open(self, name: str, tensors: Set[str] | None, stack: ExitStack) -> None:
        try:
            file = stack.enter_context(safe_open(self.folder / name, framework="pt"))
        except FileNotFoundError as error:
            raise CheckpointError(f"{self.folder / name} is missing") from error
        except SafetensorError as error:
            raise CheckpointError(
                f"{self.folder / name} cannot be read: it is cut short, or not a safetensors file. "
                f"Download it again ({error})"
            ) from error
        self._files[name] = file
        found = set(file.keys())
        if tensors is not None and (absent := tensors - found):
            raise CheckpointError(
                f"{self.folder / name} has no {min(absent)}, which {INDEX} says it holds "
                f"({len(absent)} tensors are missing). Download both again"
            )
        self._file_of.update(dict.fromkeys(found if tensors is None else tensors, name))

    def __enter__(self) -> "CheckpointReader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def check(self, expected: Mapping[str, tuple[int, ...]], optional: frozenset[str]) -> None:
        """Compare the names, shapes and dtypes with those that a model needs.

        Args:
            expected: The shape of every tensor that is needed.
            optional: Further tensors that are allowed.

        Raises:
            CheckpointError: One is missing, unknown, or of another shape or dtype.
        """
        self._refuse("lacks tensors that the config calls for", expected.keys() - self._file_of)
        unknown = self._file_of.keys() - expected.keys() - optional
        self._refuse("has tensors that the config does not call for", unknown)
        for name, shape in expected.items():
            found = self._slices(name)
            if tuple(found.get_shape()) != shape:
                raise CheckpointError(
                    f"{self.folder}: {name} is {found.get_shape()}, but the config calls for "
                    f"{list(shape)}"
                )
            if found.get_dtype() not in _DTYPES:
                raise CheckpointError(
                    f"{self.folder}: {name} has dtype {found.get_dtype()}; supported are "
                    f"{', '.join(_DTYPES)}. Convert a quantised checkpoint first"
                )

    @property
    def names(self) -> Set[str]:
        """The names of all tensors."""
        return self._file_of.keys()

    def read(self, name: str, selection: Selection | None = None) -> Tensor:
        """Read a tensor, or a part of it.

        Args:
            name: The tensor.
            selection: The part; ``None`` is all.

        Returns:
            The part, in the file's dtype, on the CPU.
        """
        index = (slice(None),) if selection is None else index_of(selection)
        part: Tensor = self._slices(name)[index]
        return part

    def dtype(self, name: str) -> torch.dtype:
        """Get the dtype of a tensor."""
        return _DTYPES[self._slices(name).get_dtype()]

    def _slices(self, name: str) -> Any:
        return self._files[self._file_of[name]].get_slice(name)

    def _refuse(self, fault: str, names: set[str]) -> None:
        if names:
            some = ", ".join(sorted(names)[:5])
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            raise CheckpointError(f"{self.folder} {fault}: {some}{more}")


class CheckpointWriter:
    """A writer of a checkpoint: one file, or several and their index.

    Args:
        folder: An empty folder.
        max_file_bytes: The size that no file exceeds unless one tensor does, in bytes.
    """

    def __init__(self, folder: Path, max_file_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_file_bytes
        self._pending: dict[str, Tensor] = {}
        self._pending_bytes = 0
        self._total_bytes = 0
        self._files: list[list[str]] = []

    def add(self, name: str, tensor: Tensor) -> None:
        """Add a tensor, after writing those before it if the file would grow too large.

        Args:
            name: Its name.
            tensor: A tensor on the CPU, in memory of its own. It is kept until it is written.

        Raises:
            OSError: The file cannot be written.
        """
        if self._pending and self._pending_bytes + tensor.nbytes > self._max_bytes:
            self._write()
        self._pending[name] = tensor
        self._pending_bytes += tensor.nbytes
        self._total_bytes += tensor.nbytes

    def finish(self) -> None:
        """Write the remaining tensors, and name the files.

        Raises:
            OSError: A file cannot be written.
        """
        self._write()
        count = len(self._files)
        if count == 1:
            _path(self._folder, 0).rename(self._folder / _SINGLE)
            return
        weight_map = {}
        for number, names in enumerate(self._files):
            file = f"model-{number + 1:05}-of-{count:05}.safetensors"
            _path(self._folder, number).rename(self._folder / file)
            weight_map.update(dict.fromkeys(names, file))
        index = {"metadata": {"total_size": self._total_bytes}, "weight_map": weight_map}
        (self._folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")

    def _write(self) -> None:
        path = _path(self._folder, len(self._files))
        try:
            save_file(self._pending, path, metadata={"format": "pt"})
        except SafetensorError as error:
            # This is how safetensors reports an error of the system, such as a full disk.
            raise OSError(str(error)) from error
        # Flushed file by file, so that the disk works while the next tensors are gathered.
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        self._files.append(list(self._pending))
        self._pending, self._pending_bytes = {}, 0


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number}.safetensors.writing"


def _tensors_of_files(folder: Path) -> dict[str, set[str] | None]:
    """List the files of a checkpoint, each with its tensors; ``None`` is all that are in it."""
    index = folder / INDEX
    if not index.is_file():
        if not (folder / _SINGLE).is_file():
            raise CheckpointError(f"{folder} has neither {_SINGLE} nor {INDEX}")
        return {_SINGLE: None}
    tensors_of: dict[str, set[str]] = {}
    try:
        for tensor, file in sorted(json.loads(index.read_text())["weight_map"].items()):
            tensors_of.setdefault(file, set()).add(tensor)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{index} is not an index of safetensors files: {error}") from error
    if not tensors_of or any(Path(file).name != file for file in tensors_of):
        raise CheckpointError(f"{index} names no files, or files outside of its folder")
    return {**tensors_of}
