"""What every Python process of the tests keeps to, without its knowledge.

No network but loopback: ``socket.connect`` and the like are refused in Python whoever asks for them; sockets that a C
library opens by itself are not seen. And with ``REMI_CORE_ALONE`` set no package but ``remi_core``, as if it were
installed alone.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys

CONNECTING = ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.bind")
NAMING = ("socket.getaddrinfo", "socket.gethostbyname")
BESIDE_THE_CORE = ("remi_lab", "remi_book")


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
    """Return if what is about to happen stays on this machine."""
    place = None
    if event in CONNECTING and arguments[0].family in (socket.AF_INET, socket.AF_INET6):
        place = arguments[1][0] if isinstance(arguments[1], tuple) else None
    elif event in NAMING:
        place = arguments[0]
    if not is_here(place):
        raise OutsideError(f"{event} {place!r}: tests use no network but loopback")


sys.addaudithook(refuse)


class CoreAlone:
    """A finder of modules that finds none of the packages beside the core, and leaves the search to others."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] in BESIDE_THE_CORE:
            raise ModuleNotFoundError(f"No module named {name!r} where the core is alone", name=name)


if os.environ.get("REMI_CORE_ALONE"):
    sys.meta_path.insert(0, CoreAlone)
