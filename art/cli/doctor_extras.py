"""The extras of art, as its own metadata lists them, against what is installed."""

import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import metadata
from typing import NamedTuple

from art.megatron.model_support.minimum_versions import installed_version

# What is of use only in a clone of the repository.
_NOT_SHOWN = ("dev", "examples")
# The form in which build backends write a requirement. packaging reads any, in twice the time that
# the rest of `art doctor` takes.
_REQUIREMENT = re.compile(
    r"(?P<name>[\w.-]+)\s*(\[(?P<extras>[\w.,\s-]+)\])?\s*\(?(?P<versions>[^;()@]*)\)?\s*"
    r"(;\s*(?P<marker>.*))?"
)
_EXTRA = re.compile(r"""extra == ['"]([\w.-]+)['"]""")
_PLATFORM = re.compile(r"""sys_platform == ['"](\w+)['"]""")


class Requirement(NamedTuple):
    """A distribution that an extra brings.

    Attributes:
        distribution: Its name.
        versions: The versions that art works with, such as ``">=2.7"``; ``""`` is any.
        installed: The version that is installed; ``None`` if it is not.
    """

    distribution: str
    versions: str
    installed: str | None

    @property
    def is_satisfied(self) -> bool:
        """Whether it is installed in a version that art works with."""
        if self.installed is None:
            return False
        from packaging.specifiers import SpecifierSet

        return SpecifierSet(self.versions).contains(self.installed, prereleases=True)


class Extra(NamedTuple):
    """An extra of art on this platform.

    Attributes:
        name: Its name.
        requirements: What it brings; empty where this platform is not one of its own.
    """

    name: str
    requirements: tuple[Requirement, ...]

    @property
    def missing(self) -> list[Requirement]:
        """What is not installed."""
        return [entry for entry in self.requirements if entry.installed is None]

    @property
    def too_old(self) -> list[Requirement]:
        """What is installed in a version that art does not work with, older or newer."""
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
        The extras that users choose from.
    """
    fields = metadata(distribution)
    lines = fields.get_all("Requires-Dist") or []
    names = fields.get_all("Provides-Extra") or []
    # Extras share much, and each look-up reads a file.
    version_of = cache(installed_version)
    extras = []
    for name in names:
        if name not in _NOT_SHOWN:
            required = dict(_of_extra(lines, name))
            extras.append(
                Extra(
                    name,
                    tuple(
                        Requirement(distribution, versions, version_of(distribution))
                        for distribution, versions in required.items()
                    ),
                )
            )
    return extras


def _of_extra(lines: list[str], extra: str) -> Iterator[tuple[str, str]]:
    """Distributions that an extra brings, each with its versions."""
    for line in lines:
        name, extras, versions, marker = _parse(line)
        if not marker or not _applies(marker, extra):
            continue
        if name == "art-rl":  # an extra that brings another
            for other in extras:
                yield from _of_extra(lines, other)
        else:
            yield name, versions


def _parse(line: str) -> tuple[str, list[str], str, str]:
    """Take a requirement apart: name, extras, versions, marker."""
    match = _REQUIREMENT.fullmatch(line)
    if match is None:
        from packaging import requirements

        parsed = requirements.Requirement(line)
        return parsed.name, list(parsed.extras), str(parsed.specifier), str(parsed.marker or "")
    extras = [name.strip() for name in (match["extras"] or "").split(",") if name.strip()]
    return match["name"], extras, match["versions"].strip(), match["marker"] or ""


def _applies(marker: str, extra: str) -> bool:
    """Whether a marker holds for an extra on this machine."""
    terms = [term.strip(" ()") for term in marker.split(" and ")]
    if any(not (_EXTRA.fullmatch(term) or _PLATFORM.fullmatch(term)) for term in terms):
        from packaging.markers import Marker

        return Marker(marker).evaluate({"extra": extra}) and not Marker(marker).evaluate(
            {"extra": ""}
        )
    extras = [match[1] for term in terms if (match := _EXTRA.fullmatch(term))]
    platforms = [match[1] for term in terms if (match := _PLATFORM.fullmatch(term))]
    return extras == [extra] and all(name == sys.platform for name in platforms)
