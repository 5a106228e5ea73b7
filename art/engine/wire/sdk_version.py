"""The versions of the SDK that this server speaks with, and the flags that it sends them."""

import logging
from collections.abc import Mapping
from functools import lru_cache

from packaging.version import Version

from art.errors import IncompatibleClientError

logger = logging.getLogger(__name__)

OLDEST = Version("0.22")
"""The first minor that can send ``forward_backward`` as protobuf without gRPC."""

NEWEST = Version("0.38")
"""The last minor that the tests run; later ones are let in."""

CLIENT_CONFIG: Mapping[str, bool] = {
    "pjwt_auth_enabled": False,
    # On loopback, compression costs more than it saves.
    "proto_compress_fwdbwd": False,
    # Up to 0.24 the SDK sends JSON, and forward on a route of its own, unless it is told.
    "proto_write_fwdbwd": True,
    "fwd_via_fwdbwd": True,
    # From 0.32 on: copies of a sampling client number their requests from blocks that are given
    # out one by one, not drawn at random.
    "sample_join_sampling_session": True,
}
"""The answer to ``client/config``. The SDK ignores the flags that its version has not."""


def check_sdk_version(version: str) -> None:
    """Refuse a client whose SDK is too old, and log one that is newer than the tests run.

    Args:
        version: As the SDK reports it, such as ``"0.38.0"``.

    Raises:
        IncompatibleClientError: It is older than :data:`OLDEST`, or not a version.
    """
    try:
        parsed = Version(version)
    except ValueError:  # not a version, or with a number of thousands of digits
        parsed = None
    if parsed is None or parsed.release < OLDEST.release:
        raise IncompatibleClientError(
            f"this server speaks with the tinker SDK from {OLDEST} on, and the client uses "
            f'{version:.60}; upgrade it: pip install "tinker>={OLDEST}"'
        )
    if parsed.release[:2] > NEWEST.release:
        _log_newer(f"{version:.60}")


@lru_cache(maxsize=64)
def _log_newer(version: str) -> None:
    """Say once that a version is unknown here."""
    logger.warning(
        "a client uses the tinker SDK %s; the newest that this server was tested with is %s. "
        "What it sends beyond that is refused by name",
        version,
        NEWEST,
    )
