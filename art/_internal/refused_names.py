"""Names of ART that art refuses, and the way to take instead. docs/from-openpipe-art.md has all.

Read when a lazy package is asked for a name that it does not have.
"""

_HOSTED = (
    "the service behind it is run by others for ART alone; use art.TinkerBackend() for a hosted "
    "service, or art.LocalBackend() for this machine"
)

# By the full name that ART's code imports.
REFUSED = {
    "art.ServerlessBackend": _HOSTED,
    "art.ServerlessTrainResult": _HOSTED,
    "art.serverless": _HOSTED,
}


def find_way(name: str) -> str:
    """Find the reason and the way for a name of ART's that is refused; empty for any other."""
    return REFUSED.get(name, "")
