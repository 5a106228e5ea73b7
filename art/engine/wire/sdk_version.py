"""The versions of the SDK that this server speaks with."""

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from art.errors import IncompatibleClientError

SUPPORTED = SpecifierSet(">=0.38,<0.39", prereleases=True)
"""The range that the tests run against."""


def check_sdk_version(version: str) -> None:
    """Refuse a client whose SDK is not in the range that this server speaks with.

    Args:
        version: As the SDK reports it, such as ``"0.38.0"``.

    Raises:
        IncompatibleClientError: It is older or newer, or not a version.
    """
    try:
        supported = Version(version) in SUPPORTED
    except InvalidVersion:
        supported = False
    if not supported:
        bounds = ",".join(sorted(map(str, SUPPORTED), reverse=True))
        raise IncompatibleClientError(
            f"this server speaks with the tinker SDK {bounds}, and the client uses {version!r}; "
            f'install one in the range: pip install "tinker{bounds}"'
        )
