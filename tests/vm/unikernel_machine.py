"""A unikernel's image in a machine that QEMU starts by itself, without swiftlet, with a card of QEMU's user network."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from swiftlet.unikernel.client import Client

ADDRESS = "10.0.2.15"
"""What the user network's DHCP gives its first guest."""


class Machine(NamedTuple):
    """A machine that is ready. said: on its console. port: of this host, at which it is called."""

    said: str
    port: int

    def client(self) -> Client:
        """A connection to it."""
        return Client("127.0.0.1", self.port)


@contextmanager
def machine(
    image: Path,
    kind: str,
    *flags: str,
    card: str = "virtio-net-pci",
    processors: int = 1,
    address: str = "",
    until: bytes = b"ready\n",
    seconds: float = 60,
) -> Iterator[Machine]:
    """Boot an image. kind: of machine. address: that its command line says; else it asks by DHCP."""
    port = free_port()
    network = f"user,id=n,hostfwd=udp:127.0.0.1:{port}-{address or ADDRESS}:7000"
    command = ["qemu-system-x86_64", "-M", kind, "-accel", "tcg", "-cpu", "max", "-smp", str(processors)]
    command += ["-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", str(image), "-m", "64"]
    command += [*flags, "-netdev", network, "-device", f"{card},netdev=n"]
    command += ["-append", f"address={address}"] if address else []
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        yield Machine(_said(process, until, seconds), port)
        assert process.poll() is None, "it has ended"
    finally:
        process.kill()
        process.wait()


def _said(process: subprocess.Popen[bytes], until: bytes, seconds: float) -> str:
    """What a machine says, up to a word of it or its end."""
    assert process.stdout is not None
    said, end = b"", time.monotonic() + seconds
    while until not in said and time.monotonic() < end and process.poll() is None:
        if select.select([process.stdout], [], [], 1)[0]:
            said += os.read(process.stdout.fileno(), 4096)
    return said.decode()


def free_port() -> int:
    """A port of UDP that nobody has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def woken(before: Sequence[dict[str, int]], after: Sequence[dict[str, int]]) -> list[int]:
    """How often each processor was interrupted between two looks at a machine's figures."""
    return [new["interrupts"] - old["interrupts"] for new, old in zip(after, before, strict=True)]
