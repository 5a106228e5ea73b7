"""Modules that are imported when one of their names is first read: for annotations.

A module that must load in no time cannot import what its signatures name. Type checkers are told
by ``if TYPE_CHECKING``; with a :class:`DeferredModule` in its place at run time, the strings in the
signatures can be evaluated too, as ``typing.get_type_hints`` does::

    if TYPE_CHECKING:
        from art import types as art_types
    else:
        art_types = DeferredModule("art.types")

    def train(config: "art_types.TrainConfig | None" = None) -> None: ...
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class DeferredModule:
    """A stand-in for a module, which reading any of its names imports.

    Args:
        name: The module's full name.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> "Any":
        from importlib import import_module

        return getattr(import_module(self._name), attribute)
