"""Lazy packages: the stub of a package is the one list of its public names.

A lazy package holds two files. ``__init__.pyi`` lists the names, one a line::

    from .trajectories import Trajectory as Trajectory

and ``__init__.py`` hands the stub to :func:`attach`::

    from art import _lazy

    __getattr__, __dir__, __all__ = _lazy.attach(__name__)

Python loads ``art.trajectories`` when ``art.Trajectory`` is first touched; type checkers and
editors read the same stub. ``lazy_loader`` does the loading, and is itself loaded with the first
name. This module adds what it lacks: a reader that costs no ``import ast`` and works from a zip
file, and errors that keep their cause. ``docs/lazy-imports.md`` says how this differs from others.

The grammar of a stub is checked where stubs are written (``python -m tools.stub_grammar``), so
that reading one here can stay this simple.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

_OFF = ("", "0", "false", "no", "off")

# The extra that brings what a part of art needs.
_EXTRA_OF_SUBPACKAGE = {
    "chat": "tinker",
    "endpoint": "tinker",
    "engine": "local",
    "executors": "local",
    "langgraph": "langgraph",
    "local": "local",
    "mcp": "mcp",
    "megatron": "megatron",
    "rl": "tinker",
    "tinker": "tinker",
}
# What those parts import that the extra brings. The advice to install an extra is given for these
# alone: for any other module it would be wrong.
_TINKER = "fastapi google httpx jinja2 numpy starlette tinker transformers uvicorn yaml"
_MODULES_OF_EXTRA = {
    "tinker": _TINKER,
    "local": f"{_TINKER} accelerate gguf huggingface_hub llguidance peft psutil safetensors"
    " tokenizers torch zstandard",
    "mcp": "mcp",
    "langgraph": "langchain_openai",
    "megatron": "einops huggingface_hub megatron packaging psutil safetensors torch transformers",
}


def attach(
    package_name: str, *, guard: str | None = None
) -> "tuple[Callable[[str], object], Callable[[], list[str]], list[str]]":
    """Make a package lazy by the names in its ``__init__.pyi``.

    Args:
        package_name: The package's ``__name__``.
        guard: The address of a function, as ``"module:name"``, that is called with the name of a
            module of the package before that module is loaded, and raises to refuse it. Its own
            module is imported then, and not before.

    Returns:
        ``__getattr__``, ``__dir__`` and ``__all__`` for the package (PEP 562).

    Raises:
        ImportError: The stub is missing, or the package's loader cannot read it.

    The returned ``__getattr__`` raises ``AttributeError`` for a name that the stub does not list,
    :class:`art.errors.MissingExtraError` where a name needs an engine that is not installed, what
    the guard raises, and ``ImportError`` with its cause where the module behind a name cannot be
    loaded. A submodule that names come from is an attribute too, as it is in a package that is not
    lazy.

    With ``ART_EAGER_IMPORT=1`` in the environment the package loads every name at once.
    """
    package = sys.modules[package_name]
    addresses = read_stub(package)
    names = sorted(addresses)

    def __getattr__(name: str) -> object:
        module = addresses.get(name)
        if module is None:
            if not any(path.partition(".")[0] == name for path in addresses.values()):
                raise _no_attribute(package, name)
            module = name
        if guard is not None:
            # Before the import, which may fail deep inside of what the guard looks at.
            _resolve(guard)(module)
        return _load(package_name, module, name)

    def __dir__() -> list[str]:
        return sorted(addresses.keys() | package.__dict__.keys())

    if os.environ.get("ART_EAGER_IMPORT", "").lower() not in _OFF:
        # Modules that load now may import from this package, which has no `__getattr__` yet.
        package.__dict__.update(__getattr__=__getattr__, __dir__=__dir__, __all__=names)
        from art._internal.eager import load_all

        load_all(package)
    return __getattr__, __dir__, names


def read_stub(package: "ModuleType") -> dict[str, str]:
    """Read which module each public name of a lazy package comes from.

    Args:
        package: A package with a stub, loaded or about to be.

    Returns:
        The module of each name, below the package: ``{"Trajectory": "trajectories"}``. A
        submodule is its own: ``{"dev": "dev"}``. A module of a package above keeps its further
        dots: ``{"retry": ".retries"}`` for ``from ..retries import retry as retry``.

    Raises:
        ImportError: The stub is missing, or the package's loader cannot read it.
    """
    spec = package.__spec__
    if spec is None or spec.origin is None:
        raise ImportError(f"{package.__name__} has no file, so its stub cannot be found")
    path = spec.origin.rpartition(".")[0] + ".pyi"
    try:
        # The loader reads from wherever the package came from: a folder, a zip file, a bundle.
        text = spec.loader.get_data(path).decode()  # type: ignore[union-attr]
    except (AttributeError, OSError) as error:
        raise ImportError(
            f"cannot read {path}, the list of the public names of {package.__name__}: whatever "
            "packed this copy of art left out its .pyi files, or loads modules in its own way"
        ) from error
    addresses: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("from ."):
            _, module, _, name, _, _ = line.split()
            addresses[name] = module[1:] or name
    return addresses


def _no_attribute(package: "ModuleType", name: str) -> AttributeError:
    """Say that a package has no such name; and of a name of ART's, which way to take instead."""
    reason = ""
    if not name.startswith("_"):
        from art._internal.refused_names import find_way

        reason = find_way(f"{package.__name__}.{name}")
    text = f"module {package.__name__!r} has no attribute {name!r}{reason and f': {reason}'}"
    return AttributeError(text, name=name, obj=package)


def _resolve(address: str) -> "Callable[[str], object]":
    from importlib import import_module

    module, _, name = address.partition(":")
    function: Callable[[str], object] = getattr(import_module(module), name)
    return function


def _load(package_name: str, module: str, name: str) -> object:
    import lazy_loader

    # One name at a time, since lazy_loader has a switch of its own: with EAGER_IMPORT set, for
    # the sake of another library, it would load every engine, and fail at the first absent one.
    # It loads the name, and keeps it in the package so that `__getattr__` is not called again.
    if module.startswith("."):
        load, module = _loader_from_above(package_name, module), _absolute(package_name, module)
    else:
        if module == name:
            load, _, _ = lazy_loader.attach(package_name, [name])
        else:
            load, _, _ = lazy_loader.attach(package_name, None, {module: [name]})
        module = f"{package_name}.{module}"
    try:
        return load(name)
    except ModuleNotFoundError as error:
        explained = explain_missing(error, module)
        if explained is error:
            raise
        raise explained from error
    except AttributeError as error:
        # Left as it is, `hasattr` would answer False and the cause would be lost.
        raise ImportError(f"cannot load {package_name}.{name}: {error}", name=module) from error


def _absolute(package_name: str, module: str) -> str:
    while module.startswith("."):
        package_name, module = package_name.rpartition(".")[0], module[1:]
    return f"{package_name}.{module}"


def _loader_from_above(package_name: str, module: str) -> "Callable[[str], object]":
    """Load names of a package above. lazy_loader would keep them there, as names of its own."""
    from importlib import import_module

    def load(name: str) -> object:
        value: object = getattr(import_module(_absolute(package_name, module)), name)
        sys.modules[package_name].__dict__[name] = value
        return value

    return load


def explain_missing(error: ModuleNotFoundError, part: str) -> ImportError:
    """Say which extra brings a missing module, if an extra does.

    Args:
        error: What the import raised.
        part: The part of art that was being loaded, such as ``"art.tinker"``.

    Returns:
        A :class:`art.errors.MissingExtraError` when the missing module's root package is truly
        absent and an extra brings it; otherwise ``error`` itself, since a partial or broken
        install must show its own.
    """
    root = (error.name or "").partition(".")[0]
    extra = _EXTRA_OF_SUBPACKAGE.get(part.partition(".")[2].partition(".")[0], "")
    if root not in _MODULES_OF_EXTRA.get(extra, "").split() or _is_present(root):
        return error
    from art.errors import MissingExtraError

    return MissingExtraError(part, root, extra)


def _is_present(root: str) -> bool:
    from importlib.util import find_spec

    return sys.modules.get(root) is not None or find_spec(root) is not None
