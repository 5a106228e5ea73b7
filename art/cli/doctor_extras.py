"""The extras of art, as its own metadata lists them, against what is installed."""

from collections.abc import Iterator
from functools import cache
from importlib.metadata import metadata
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from art.megatron.model_support.minimum_versions import installed_version


class RequiredDistribution(NamedTuple):
    """A distribution that an extra brings.

    Attributes:
        distribution: Its name.
        versions: The versions that art works with, such as ``>=2.7``; an empty set is any.
        installed: The version that is installed; ``None`` if it is not.
    """

    distribution: str
    versions: SpecifierSet
    installed: str | None

    @property
    def is_satisfied(self) -> bool:
        """True if it is installed in a version that art works with."""
        return self.installed is not None and self.versions.contains(
            self.installed, prereleases=True
        )


class Extra(NamedTuple):
    """An extra of art on this platform.

    Attributes:
        name: Its name.
        requirements: What it brings; empty where this platform is not one of its own.
    """

    name: str
    requirements: tuple[RequiredDistribution, ...]

    @property
    def missing(self) -> list[RequiredDistribution]:
        """The distributions that are not installed."""
        return [entry for entry in self.requirements if entry.installed is None]

    @property
    def too_old(self) -> list[RequiredDistribution]:
        """The distributions in a version that art does not work with, older or newer."""
        return [
            entry
            for entry in self.requirements
            if entry.installed is not None and not entry.is_satisfied
        ]


def installed_extras(distribution: str = "art-rl") -> list[Extra]:
    """List the extras of a distribution, what each brings here, and what of it is installed.

    Args:
        distribution: Its name. It must be installed.

    Returns:
        The extras, in the order of its metadata.
    """
    fields = metadata(distribution)
    requirements = [Requirement(line) for line in fields.get_all("Requires-Dist") or []]
    # Extras share much, and each look-up reads a file.
    version_of = cache(installed_version)
    extras = []
    for name in fields.get_all("Provides-Extra") or []:
        brought = _brought_by(name, requirements, canonicalize_name(distribution))
        required = [
            RequiredDistribution(each.name, each.specifier, version_of(each.name))
            for each in {each.name: each for each in brought}.values()
        ]
        extras.append(Extra(name, tuple(required)))
    return extras


def _brought_by(
    extra: str, requirements: list[Requirement], distribution: str
) -> Iterator[Requirement]:
    """Yield the requirements of an extra on this platform, and of the extras that it names."""
    for requirement in requirements:
        marker = requirement.marker
        if marker is None or marker.evaluate({"extra": ""}):
            continue  # brought without any extra
        if not marker.evaluate({"extra": extra}):
            continue
        if canonicalize_name(requirement.name) == distribution:
            for other in sorted(requirement.extras):
                yield from _brought_by(other, requirements, distribution)
        else:
            yield requirement
