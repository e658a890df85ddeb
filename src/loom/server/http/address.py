"""Where a server listens: an address that can be had, no further than its keys reach, and its socket."""

from __future__ import annotations

import errno
import os
import socket
from typing import NamedTuple

from loom.model import limits
from loom.model.errors import UsageError

from .security import is_loopback

__all__ = ["Address", "adopt", "listen"]

UNSENT_BYTES = 128 << 10
"""What the system may hold of one connection beyond what is on its way, so that a slow reader is felt here."""


class Address(NamedTuple):
    """Where a server listens; `port` is the real one when 0 was asked for."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """What a client on this machine connects to."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


def listen(host: str, port: int, *, keyed: bool) -> socket.socket:
    """A listening socket, to be closed by its user. Raises `UsageError` when the address cannot be had, and beyond
    loopback without keys."""
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"cannot listen on {host!r}: {error}") from None
    family, _, _, _, address = found[0]
    _check_exposure(str(address[0]), keyed=keyed)
    both = address[0] == "::" and socket.has_dualstack_ipv6()
    try:
        return socket.create_server((str(address[0]), port), family=family, dualstack_ipv6=both)
    except OSError as error:
        raise UsageError(_why_not(error, host, port)) from None


def adopt(listener: socket.socket, *, keyed: bool) -> Address:
    """Where a listening socket, ours or a given one, listens; it is made ready to serve. Raises `UsageError` beyond
    loopback without keys."""
    name = listener.getsockname()
    address = Address(name[0], name[1]) if isinstance(name, tuple) else Address("localhost", 0)
    _check_exposure(address.host, keyed=keyed)
    _tune(listener)
    return address


def _check_exposure(host: str, *, keyed: bool) -> None:
    if not keyed and not is_loopback(host):
        raise UsageError(f"listening on {host}, beyond this machine, needs keys: set LOOM_API_KEYS, or use 127.0.0.1")


def _why_not(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is in use on {host}: stop the other program, or choose another port (0: any free one)"
    if error.errno == errno.EACCES:
        return f"port {port} needs privileges: choose one from 1024 up"
    # Only the system's words: those of asyncio and socket name the address, too.
    reason = os.strerror(error.errno) if error.errno else error
    return f"cannot listen on {host}:{port}: {reason}"


def _tune(listener: socket.socket) -> None:
    """Accepted connections inherit these: a peer that takes or acknowledges nothing for `limits.STALLED_VIEWER` is cut
    by the system, and what the system buffers beyond the wire is bounded."""
    if listener.family not in (socket.AF_INET, socket.AF_INET6):
        return
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; RFC 5482
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(limits.STALLED_VIEWER * 1000))
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
