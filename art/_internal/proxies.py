"""Proxies of the environment, which do not reach this machine's own servers.

``HTTP_PROXY`` and its kin send all requests of HTTP clients through a proxy, those to 127.0.0.1
too, where ``NO_PROXY`` does not say otherwise. The proxy would look for the server on its own
machine.
"""

import ipaddress
import logging
import os
from urllib.parse import urlsplit

logger = logging.getLogger(__name__)

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_SCHEMES = ("http", "https", "all")


def is_loopback_url(url: str) -> bool:
    """True where a URL names this machine by ``localhost`` or an address of loopback."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bypass_proxies(url: str) -> None:
    """Let the clients of this process, and of those that it starts, reach a server directly.

    Where the URL is of loopback and the environment names a proxy, loopback is added to
    ``NO_PROXY``. Clients that read it are those made from now on: the Tinker SDK's, which takes no
    other setting, and an agent's own.

    Args:
        url: The server's address.
    """
    if not is_loopback_url(url):
        return
    from urllib.request import getproxies_environment

    proxies = getproxies_environment()
    if not any(scheme in proxies for scheme in _SCHEMES):
        return
    excluded = [host.strip() for host in proxies.get("no", "").split(",") if host.strip()]
    missing = [host for host in (*_LOOPBACK, urlsplit(url).hostname or "") if host not in excluded]
    if "*" in excluded or not missing:
        return
    value = ",".join([*excluded, *dict.fromkeys(missing)])
    # Clients differ in which of the two they read first.
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = value
    logger.info("requests to %s must not go through a proxy: NO_PROXY is now %s", url, value)
