"""PEFT folders: ``adapter_model.safetensors`` and ``adapter_config.json``.

Tensors have the shapes that PEFT gives them: see :mod:`.layout`.
"""

import json
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from art._internal.files import TEMPORARY, flush_files, flush_folder, new_folder
from art.errors import AdapterFormatError, CheckpointError
from art.formats.peft_folder import CONFIG_FILE, WEIGHTS_FILE


def write_folder(folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Write an adapter in PEFT's format.

    A new folder appears when it is complete. In a folder that exists the two files are replaced,
    and other files are kept.

    Args:
        folder: The folder.
        tensors: The adapter's tensors by PEFT's names.
        config: The content of ``adapter_config.json``.

    Raises:
        CheckpointError: The folder cannot be written. An adapter that was in it is intact.
    """
    try:
        if not folder.exists():
            with new_folder(folder) as temporary:
                _write_files(temporary, tensors, config)
            return
        with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=folder) as name:
            temporary = Path(name)
            _write_files(temporary, tensors, config)
            flush_files(temporary)
            for file in (WEIGHTS_FILE, CONFIG_FILE):
                (temporary / file).replace(folder / file)
        flush_folder(folder)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"the adapter cannot be written to {folder}: {error}") from error


def _write_files(folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    save_file(dict(tensors), folder / WEIGHTS_FILE, metadata={"format": "pt"})
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


class AdapterReader:
    """A reader of the adapter in a PEFT folder. A tensor is read when it is asked for.

    Args:
        folder: The folder.

    Raises:
        CheckpointError: A file is missing or cut short.
        AdapterFormatError: ``adapter_config.json`` is not a JSON object.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = _read_config(folder / CONFIG_FILE)
        path = folder / WEIGHTS_FILE
        try:
            self._file = safe_open(path, framework="pt")
            self.shapes: dict[str, tuple[int, ...]] = {
                name: tuple(self._file.get_slice(name).get_shape())
                for name in self._file.keys()  # noqa: SIM118 - not a dict
            }
        except FileNotFoundError as error:
            raise CheckpointError(f"{path} is missing") from error
        except SafetensorError as error:
            raise CheckpointError(
                f"{path} cannot be read: it is cut short, or not a safetensors file ({error})"
            ) from error
        # All experts of a layer are in the same four tensors, which are asked for by each.
        self.read = lru_cache(maxsize=4)(self._read)

    def _read(self, name: str) -> Tensor:
        tensor: Tensor = self._file.get_tensor(name)
        return tensor

    def check(self, expected: Mapping[str, tuple[int, int]]) -> None:
        """Compare the tensors' names and shapes with those of a model's adapter.

        Args:
            expected: The shape of every tensor that is needed.

        Raises:
            AdapterFormatError: A tensor is missing, unknown, or of another shape.
        """
        self._refuse("lacks tensors of the model's adapter", expected.keys() - self.shapes)
        self._refuse("has tensors that the model has no adapter for", self.shapes.keys() - expected)
        for name, shape in expected.items():
            if self.shapes[name] != shape:
                raise AdapterFormatError(
                    f"{self.folder}: {name} is {list(self.shapes[name])}, but the model's adapter "
                    f"is {list(shape)}"
                )

    def _refuse(self, fault: str, names: set[str]) -> None:
        if names:
            some = ", ".join(sorted(names)[:5])
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            raise AdapterFormatError(f"{self.folder} {fault}: {some}{more}")


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    except ValueError as error:
        raise AdapterFormatError(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise AdapterFormatError(f"{path} is not a JSON object")
    return config
