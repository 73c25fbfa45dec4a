"""What machines take of the host's memory: proportional shares, so that a page that many have is counted once.

A clone maps its snapshot's memory privately from the page cache: what clones only read is divided among those that did.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def share_of(text: str) -> int:
    """Bytes of the proportional set size that a smaps_rollup tells (Documentation/filesystems/proc.rst)."""
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        if name == "Pss":
            return int(rest.split()[0]) << 10
    raise ValueError("no proportional set size is told")


def of_processes(pids: Iterable[int]) -> int:
    """Bytes that processes which run take together."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            total += share_of(file.read())
    return total


def processes(guest: dict[str, Any]) -> list[int]:
    """QEMU and its servers: whoever is in a guest's control group. guest: as `inspect` tells."""
    folder = next(iter(guest["bundle"]["cgroup"]["paths"].values()))
    with open(f"{folder}/cgroup.procs") as file:
        return [int(line) for line in file]
