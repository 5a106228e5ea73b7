"""The versions that a family needs, held against those that are installed here."""

from importlib.metadata import PackageNotFoundError, version
from typing import Final, Literal

from art._lazy import read_stub
from art.errors import DependencyFloorError

from . import handlers
from .registry import DEFAULT_DENSE_SPEC, VALIDATED_MODEL_SUPPORT_SPECS
from .spec import DependencyFloor, ModelSupportSpec, Record

FloorStatus = Literal["satisfied", "below", "absent", "unknown"]

_DISTRIBUTIONS = {
    "transformers": "transformers",
    "vllm": "vllm",
    "megatron_bridge": "megatron-bridge",
    "megatron_core": "megatron-core",
}


class InstalledFloor(Record):
    """One floor of a family, and what is installed here.

    Args:
        distribution: What the floor is for, such as ``"transformers"``.
        floor: The lowest version, or a commit.
        installed: The version that is installed; ``None`` if it is not.
    """

    __slots__ = ("distribution", "floor", "installed")

    def __init__(self, *, distribution: str, floor: str, installed: str | None) -> None:
        self.distribution: Final = distribution
        self.floor: Final = floor
        self.installed: Final = installed

    @property
    def status(self) -> FloorStatus:
        """``"unknown"`` is a commit: whether a version is older than it shows in neither."""
        if self.installed is None:
            return "absent"
        from packaging.version import InvalidVersion, Version

        try:
            satisfied = Version(self.installed) >= Version(self.floor)
        except InvalidVersion:
            return "unknown"
        return "satisfied" if satisfied else "below"


def installed_floors(floor: DependencyFloor) -> list[InstalledFloor]:
    """List a family's floors with what is installed here.

    Args:
        floor: The family's floors.

    Returns:
        One entry for each floor that the family has.
    """
    return [
        InstalledFloor(
            distribution=distribution,
            floor=getattr(floor, field),
            installed=installed_version(distribution),
        )
        for field, distribution in _DISTRIBUTIONS.items()
        if getattr(floor, field) is not None
    ]


def require_floors(spec: ModelSupportSpec, *, source: str) -> None:
    """Refuse a family whose engine is installed in a version below its floor.

    What is not installed is not refused: not every use of a family needs all of its engines.

    Args:
        spec: The family.
        source: The distribution that the family comes from.

    Raises:
        DependencyFloorError: An installed version is too low. The message names all that are.
    """
    below = [
        (f"{entry.distribution}>={entry.floor}", entry.installed)
        for entry in installed_floors(spec.dependency_floor)
        if entry.status == "below"
    ]
    if not below:
        return
    needed = ", and ".join(f"{wanted}, but {found} is installed" for wanted, found in below)
    # With its extra, so that pip keeps to what else art needs of the same engine.
    targets = ["art-rl[megatron]"] if source == "art" else []
    targets += [wanted for wanted, _ in below]
    quoted = " ".join(f'"{target}"' for target in targets)
    raise DependencyFloorError(
        f"the family {spec.key!r} of {source} needs {needed}. Upgrade with: pip install {quoted}"
    )


def require_floors_of(module: str) -> None:
    """Refuse art's own families whose handlers a module holds, as :func:`require_floors` does.

    The lazy layer asks this before it loads the module: an engine that is too old would otherwise
    fail somewhere inside of that import, or later.

    Args:
        module: A module of ``handlers``, such as ``"qwen3_dense"``.

    Raises:
        DependencyFloorError: An installed version is too low.
    """
    module_of = read_stub(handlers)
    for spec in (DEFAULT_DENSE_SPEC, *VALIDATED_MODEL_SUPPORT_SPECS):
        if module_of.get(spec.handler.handler_name) == module:
            require_floors(spec, source="art")


def installed_version(distribution: str) -> str | None:
    """Find the version of a distribution without importing it.

    Args:
        distribution: Its name, such as ``"megatron-core"``.

    Returns:
        The version; ``None`` if it is not installed.
    """
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
