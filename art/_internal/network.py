"""Ports to listen on, and the keys that servers demand."""

import errno
import ipaddress
import os
import secrets
import socket

from art.errors import ConfigurationError, PortInUseError


def bind(host: str, port: int) -> socket.socket:
    """Listen on a port.

    Args:
        host: An address or a host name.
        port: 0 takes a free one.

    Returns:
        The listening socket.

    Raises:
        PortInUseError: Another process listens there.
        ConfigurationError: The address cannot be listened on.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {host!r}: {error}") from error
    try:
        if os.name != "nt":  # there it would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUseError(
                f"port {port} on {host} is taken by another process; end it, or choose another "
                "port (0 takes a free one)"
            ) from error
        raise ConfigurationError(f"cannot listen on {host!r}, port {port}: {error}") from error
    return listener


def base_url(listener: socket.socket) -> str:
    """The address by which this machine reaches a listening socket: ``http://127.0.0.1:8000``."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # every address: this machine's own is one of them
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_loopback(listener: socket.socket) -> bool:
    """True where a listening socket can be reached from this machine alone."""
    host: str = listener.getsockname()[0]
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback


def new_key(prefix: str) -> str:
    """A random API key, 192 bits behind ``prefix``."""
    return prefix + secrets.token_urlsafe(24)
