"""The wire between this host and a machine of the bench's own: a tap device with an address, gone when it is closed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator

from swiftlet.guest.qemu import CARD

HOST, GUEST, PREFIX = "198.18.77.1", "198.18.77.2", 30
"""From the block for benchmarks (RFC 2544)."""

READY_PORT = 9977
"""Where a guest tells that its service runs."""

_TUNSETIFF = 0x400454CA
_TAP, _NO_PI, _VNET_HEADER = 0x2, 0x1000, 0x4000


@contextlib.contextmanager
def tap() -> Iterator[int]:
    """A descriptor for QEMU. The guest's hardware address is known beforehand: nothing waits for ARP."""
    handle = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        name = f"swb{os.getpid()}"
        fcntl.ioctl(handle, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TAP | _NO_PI | _VNET_HEADER))
        _ip("link", "set", name, "addrgenmode", "none")  # no IPv6 packets that a guest would have to take
        _ip("address", "add", f"{HOST}/{PREFIX}", "dev", name)
        _ip("link", "set", name, "up")
        _ip("neighbour", "replace", GUEST, "lladdr", CARD, "nud", "permanent", "dev", name)
        yield handle
    finally:
        os.close(handle)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")
