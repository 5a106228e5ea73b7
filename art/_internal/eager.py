"""Eager loading of lazy packages (``ART_EAGER_IMPORT=1``): every name that can be loaded.

It is for finding, in one go, what laziness puts off: a module that cannot be imported, a cycle,
an import that is slow. Nothing loads this module otherwise.
"""

import logging
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

from art.errors import MissingExtraError

logger = logging.getLogger(__name__)

_waiting: list[ModuleType] = []


def load_all(package: ModuleType) -> None:
    """Load every public name of a package, and the packages below it.

    A package that is met while another one is being loaded waits until that is done: one that
    were loaded at once would find the modules above it half loaded.

    Args:
        package: A lazy package.

    Raises:
        Exception: What a module raised as it was loaded. Only
            :class:`art.errors.MissingExtraError` is passed over, and logged at level debug: what
            is not installed cannot be loaded.
    """
    _waiting.append(package)
    if len(_waiting) > 1:
        return
    try:
        for each in _waiting:  # grows as packages are met
            _load_names(each)
            for folder in each.__path__:
                for stub in sorted(Path(folder).glob("*/__init__.pyi")):
                    import_module(f"{each.__name__}.{stub.parent.name}")
    finally:
        _waiting.clear()


def _load_names(package: ModuleType) -> None:
    for name in sys.modules[package.__name__].__all__:
        try:
            getattr(package, name)
        except MissingExtraError as error:
            logger.debug("%s.%s is not loaded: %s", package.__name__, name, error)
