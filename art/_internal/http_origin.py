"""Requests that a web page made a browser send: how servers on loopback tell them from others.

A page on the internet can send requests to a server on this machine (cross-site request forgery),
and, under a name of its own that it lets point to 127.0.0.1, read the answers (DNS rebinding).
Such requests carry the page's address as ``Origin``, or its name as ``Host``.
"""

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from art.errors import ForeignOriginError


def check_origin(headers: Iterable[tuple[bytes, bytes]], *, loopback: bool) -> None:
    """Refuse a request that a page of another site sent.

    Args:
        headers: Of the request, names in lower case, as ASGI has them.
        loopback: Whether the server listens on loopback alone. Elsewhere it may have any name.

    Raises:
        ForeignOriginError: ``Origin`` is another site than ``Host``; or the server is on loopback,
            and ``Host`` is neither an address nor ``localhost``.
    """
    found = {name: value.decode("latin-1") for name, value in headers}
    host = found.get(b"host", "")
    origin = found.get(b"origin")
    try:
        name = urlsplit(f"//{host}").hostname or ""
        site = None if origin is None else urlsplit(origin).netloc
    except ValueError as error:
        raise ForeignOriginError(
            f"the Host {host!r:.100} or the Origin {origin!r:.100} is no address"
        ) from error
    if loopback and host and name != "localhost" and not _is_address(name):
        raise ForeignOriginError(
            f"the Host {host!r:.100} is not this machine's; use 127.0.0.1 or localhost"
        )
    if site is not None and site != host:
        raise ForeignOriginError(f"pages of {origin!r:.100} may not use this server")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
