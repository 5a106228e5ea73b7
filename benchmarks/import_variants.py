"""The same package made lazy by other means, for ``import_cost.py`` to compare with.

Each technique writes the ``__init__.py`` of every lazy package in a copy of art, from the names in
its stub. What is measured is then the technique alone: the modules are the same.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

Addresses = dict[str, list[str]]
"""The names of each module of a package; ``""`` is the package itself, its names submodules."""


def _imports(addresses: Addresses, package: str = "") -> list[str]:
    lines = []
    for module, names in addresses.items():
        source = f"{package}.{module}".rstrip(".") if package else f".{module}"
        lines += [f"from {source} import {name} as {name}" for name in names]
    return lines


def eager(addresses: Addresses, package: str) -> str:
    """Plain imports. What needs an engine that is not installed is passed over."""
    return "".join(
        f"try:\n    {line}\nexcept ImportError:\n    pass\n" for line in _imports(addresses)
    )


def hand_written(addresses: Addresses, package: str) -> str:
    """PEP 562 as people write it: a dict of addresses and an import in ``__getattr__``."""
    address_of = {name: module for module, names in addresses.items() for name in names}
    return (
        "import importlib\n"
        f"_ADDRESSES = {address_of!r}\n"
        f"__all__ = {sorted(address_of)!r}\n"
        "def __getattr__(name):\n"
        "    if name not in _ADDRESSES:\n"
        "        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')\n"
        "    if not _ADDRESSES[name]:\n"
        "        return importlib.import_module(f'{__name__}.{name}')\n"
        "    module = importlib.import_module(f'{__name__}.{_ADDRESSES[name]}')\n"
        "    value = globals()[name] = getattr(module, name)\n"
        "    return value\n"
        "def __dir__():\n"
        "    return __all__\n"
    )


def attach_stub(addresses: Addresses, package: str) -> str:
    """``lazy_loader`` on the same stubs, as its documentation shows it."""
    return (
        "import lazy_loader\n"
        "__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)\n"
    )


def lazy_imports(addresses: Addresses, package: str) -> str:
    """The distribution lazy-imports."""
    code = "\n".join(_imports(addresses))
    return (
        "from lazy_imports import LazyModule, as_package, load\n"
        f"load(LazyModule(*as_package(__file__), {code!r}, name=__name__))\n"
    )


def etils(addresses: Addresses, package: str) -> str:
    """``etils.epy.lazy_api_imports``, which takes no relative imports."""
    lines = "".join(f"    {line}\n" for line in _imports(addresses, package)) or "    pass\n"
    return f"from etils import epy\nwith epy.lazy_api_imports(globals()):\n{lines}"


TECHNIQUES: dict[str, Callable[[Addresses, str], str]] = {
    "eager imports": eager,
    "hand-written __getattr__": hand_written,
    "lazy_loader.attach_stub": attach_stub,
    "lazy-imports": lazy_imports,
    "etils": etils,
}


def write_variant(art: Path, folder: Path, technique: str | None = None) -> Path:
    """Copy art with the ``__init__.py`` of its lazy packages written by a technique.

    Args:
        art: The folder of the package.
        folder: Where the copy goes.
        technique: A key of ``TECHNIQUES``; ``None`` copies art as it is.

    Returns:
        The folder to put on ``sys.path``.
    """
    shutil.copytree(art, folder / "art", ignore=shutil.ignore_patterns("__pycache__"))
    if technique is None:
        return folder
    for stub in (folder / "art").rglob("__init__.pyi"):
        addresses: Addresses = {}
        for line in stub.read_text().splitlines():
            if line.startswith("from ."):
                _, module, _, name, _, _ = line.split()
                addresses.setdefault(module[1:], []).append(name)
        package = ".".join(stub.parent.relative_to(folder).parts)
        stub.with_suffix(".py").write_text(TECHNIQUES[technique](addresses, package))
    return folder
