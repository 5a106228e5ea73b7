"""The minimum versions that a family needs, compared with the versions that are installed."""

from importlib.metadata import PackageNotFoundError, version
from typing import Final, Literal

from art._lazy import read_stub
from art.errors import DependencyFloorError

from . import handlers
from .families import DEFAULT_DENSE_SPEC, VALIDATED_MODEL_SUPPORT_SPECS
from .spec import DependencyFloor, ModelSupportSpec, Record

VersionStatus = Literal["satisfied", "below", "absent", "unknown"]

_DISTRIBUTIONS = {
    "transformers": "transformers",
    "vllm": "vllm",
    "megatron_bridge": "megatron-bridge",
    "megatron_core": "megatron-core",
}


class VersionCheck(Record):
    """One minimum version of a family, and the version that is installed.

    Args:
        distribution: The distribution that it is of, such as ``"transformers"``.
        minimum: The minimum version, or a commit.
        installed: The version that is installed; ``None`` if it is not installed.
    """

    __slots__ = ("distribution", "minimum", "installed")

    def __init__(self, *, distribution: str, minimum: str, installed: str | None) -> None:
        self.distribution: Final = distribution
        self.minimum: Final = minimum
        self.installed: Final = installed

    @property
    def status(self) -> VersionStatus:
        """The outcome; ``"unknown"`` if the minimum is a commit, which no version can show."""
        if self.installed is None:
            return "absent"
        from packaging.version import InvalidVersion, Version

        try:
            satisfied = Version(self.installed) >= Version(self.minimum)
        except InvalidVersion:
            return "unknown"
        return "satisfied" if satisfied else "below"


def check_versions(dependency_floor: DependencyFloor) -> list[VersionCheck]:
    """Compare a family's minimum versions with the versions that are installed.

    Args:
        dependency_floor: The family's minimum versions.

    Returns:
        One check for each minimum that the family has.
    """
    return [
        VersionCheck(
            distribution=distribution,
            minimum=getattr(dependency_floor, field),
            installed=installed_version(distribution),
        )
        for field, distribution in _DISTRIBUTIONS.items()
        if getattr(dependency_floor, field) is not None
    ]


def require_versions(spec: ModelSupportSpec, *, source: str) -> None:
    """Refuse a family if an engine that it needs is installed in too low a version.

    An engine that is not installed is not refused: not every use of a family needs all of them.

    Args:
        spec: The family.
        source: The distribution that the family comes from.

    Raises:
        DependencyFloorError: An installed version is too low. The message names all that are.
    """
    below = [
        (f"{check.distribution}>={check.minimum}", check.installed)
        for check in check_versions(spec.dependency_floor)
        if check.status == "below"
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


def require_for_handler_module(module: str) -> None:
    """Refuse art's own families whose handlers a module defines, as :func:`require_versions` does.

    The guard of the lazy package ``handlers``: it is called before the module is imported, since
    an engine that is too old would fail somewhere inside that import, or later.

    Args:
        module: A module of ``handlers``, such as ``"qwen3_dense"``.

    Raises:
        DependencyFloorError: An installed version is too low.
    """
    module_of = read_stub(handlers)
    for spec in (DEFAULT_DENSE_SPEC, *VALIDATED_MODEL_SUPPORT_SPECS):
        if module_of.get(spec.handler.handler_name) == module:
            require_versions(spec, source="art")


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
