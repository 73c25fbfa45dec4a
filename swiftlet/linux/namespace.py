"""Namespaces: their flags, a user namespace with a mapping, and the joining of a guest's."""

from __future__ import annotations

import fcntl
import os
import struct

from swiftlet.linux import syscall
from swiftlet.linux.lean import signal, socket

NEWNS, NEWCGROUP, NEWUTS, NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
NEWUSER, NEWPID, NEWNET = 0x10000000, 0x20000000, 0x40000000

RANGE = 65536
"""User ids in one guest's user namespace."""


def user_namespace(first: int) -> int:
    """A descriptor of a new user namespace that maps ids 0..65535 to `first`.. of this one."""
    return _mapped(f"0 {first} {RANGE}\n", f"0 {first} {RANGE}\n")


def same_ids_namespace() -> int:
    """A descriptor of a new user namespace in which every id that there is here is the same.

    A capability in it is one over files with such owners, and over nothing that belongs to this host's kernel.
    """
    return _mapped(*(_identity(f"/proc/self/{name}") for name in ("uid_map", "gid_map")))


def _identity(path: str) -> str:
    with open(path) as file:
        rows = [line.split() for line in file]
    return "".join(f"{first} {first} {count}\n" for first, _, count in rows)


def _mapped(users: str, groups: str) -> int:
    """A short-lived child owns the namespace until the mapping is written; the descriptor then keeps it."""
    pid, pidfd = syscall.clone3(NEWUSER)
    if pid == 0:
        while True:
            signal.pause()
    try:
        for name, mapping in (("uid_map", users), ("gid_map", groups)):
            with open(f"/proc/{pid}/{name}", "w") as file:
                file.write(mapping)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(pidfd)


def network_namespace() -> int:
    """Move this process to a new network namespace whose loopback is up, and return a descriptor of it."""
    syscall.unshare(NEWNET)
    raise_loopback()
    return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def raise_loopback() -> None:
    """Let `lo` of this process's network namespace carry packets."""
    set_flags, up_and_running = 0x8914, 0x41
    control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        fcntl.ioctl(control, set_flags, struct.pack("16sh14x", b"lo", up_and_running))
    finally:
        control.close()
