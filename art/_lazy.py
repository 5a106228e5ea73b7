"""Lazy packages: the stub of a package is the one list of its public names.

A lazy package holds two files. ``__init__.pyi`` lists the names, one a line::

    from .trajectories import Trajectory as Trajectory

and ``__init__.py`` hands the stub to :func:`attach`::

    from art._lazy import attach

    __getattr__, __dir__, __all__ = attach(__name__)

Python loads ``art.trajectories`` when ``art.Trajectory`` is first touched; type checkers and
editors read the same stub. ``lazy_loader`` does the loading. This module adds what it lacks: a
reader that costs no ``import ast``, works from a zip file, and errors that keep their cause.

The grammar of a stub is checked where stubs are written (``python -m art._stub_grammar``), so
that reading one here can stay this simple.
"""

import sys
from collections.abc import Callable

import lazy_loader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

# The extra that brings what a part of art needs.
_EXTRA_OF_SUBPACKAGE = {
    "engine": "local",
    "local": "local",
    "megatron": "megatron",
    "rl": "tinker",
    "tinker": "tinker",
}


def attach(
    package_name: str,
) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """Make a package lazy by the names in its ``__init__.pyi``.

    Args:
        package_name: The package's ``__name__``.

    Returns:
        ``__getattr__``, ``__dir__`` and ``__all__`` for the package (PEP 562).

    The returned ``__getattr__`` raises ``AttributeError`` for a name that the stub does not list,
    :class:`art.errors.MissingExtraError` where a name needs an engine that is not installed, and
    ``ImportError`` with its cause where the module behind a name cannot be loaded.
    """
    package = sys.modules[package_name]
    submodules, attributes = _read_stub(package)
    load, _, names = lazy_loader.attach(package_name, submodules, attributes)
    known = frozenset(names)

    def __getattr__(name: str) -> object:
        if name not in known:
            raise AttributeError(
                f"module {package_name!r} has no attribute {name!r}", name=name, obj=package
            )
        try:
            return load(name)
        except ModuleNotFoundError as error:
            raise explain_missing(error, package_name) from error
        except AttributeError as error:
            # Left as it is, `hasattr` would answer False and the cause would be lost.
            raise ImportError(f"cannot load {package_name}.{name}: {error}") from error

    def __dir__() -> list[str]:
        return sorted(known | package.__dict__.keys())

    return __getattr__, __dir__, names


def explain_missing(error: ModuleNotFoundError, package_name: str) -> ImportError:
    """Say which extra brings a missing module, if an extra does.

    Args:
        error: What the import raised.
        package_name: The part of art that was being loaded, such as ``"art.tinker"``.

    Returns:
        A :class:`art.errors.MissingExtraError` when the missing module's root package is truly
        absent; otherwise ``error`` itself, since a partial or broken install must show its own.
    """
    from importlib.util import find_spec

    from art.errors import MissingExtraError

    root = (error.name or "").partition(".")[0]
    subpackage = package_name.partition(".")[2].partition(".")[0]
    extra = _EXTRA_OF_SUBPACKAGE.get(subpackage)
    if not root or root == "art" or extra is None or find_spec(root) is not None:
        return error
    return MissingExtraError(package_name, root, extra)


def _read_stub(package: "ModuleType") -> tuple[list[str], dict[str, list[str]]]:
    spec = package.__spec__
    if spec is None or spec.origin is None:
        raise ImportError(f"{package.__name__} has no file, so its stub cannot be found")
    # The loader reads from wherever the package came from: a folder, a zip file, a bundle.
    path = spec.origin.rpartition(".")[0] + ".pyi"
    text = spec.loader.get_data(path).decode()  # type: ignore[union-attr]
    submodules: list[str] = []
    attributes: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("from ."):
            _, module, _, name, _, _ = line.split()
            if module == ".":
                submodules.append(name)
            else:
                attributes.setdefault(module[1:], []).append(name)
    return submodules, attributes
