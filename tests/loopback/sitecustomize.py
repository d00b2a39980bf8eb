"""The processes of the tests, and those that they start, speak to this machine alone.

Python imports this module in every process that has its folder in ``PYTHONPATH``. The hook cannot be taken out again,
and sees what ``socket`` does in Python whoever asks for it; sockets that a C library opens by itself it does not see.
"""

from __future__ import annotations

import ipaddress
import socket
import sys

CONNECTING = ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.bind")
NAMING = ("socket.getaddrinfo", "socket.gethostbyname")


class OutsideError(RuntimeError):
    """A test tried to speak to another machine."""


def is_here(host: object) -> bool:
    """Whether a name or an address is this machine's, by its loopback."""
    if host in (None, "localhost", b"localhost") or host == socket.gethostname():
        return True
    try:
        return ipaddress.ip_address(host.decode() if isinstance(host, bytes) else str(host)).is_loopback
    except ValueError:
        return False


def refuse(event: str, arguments: tuple) -> None:
    """Return if what is about to happen stays on this machine.

    Raises:
        OutsideError: otherwise.
    """
    if event in CONNECTING:
        address = arguments[1]
        inet = arguments[0].family in (socket.AF_INET, socket.AF_INET6)
        if inet and isinstance(address, tuple) and not is_here(address[0]):
            raise OutsideError(f"{event} {address}: tests use no network but loopback")
    if event in NAMING and not is_here(arguments[0]):
        raise OutsideError(f"{event} {arguments[0]!r}: tests use no network but loopback")


sys.addaudithook(refuse)
