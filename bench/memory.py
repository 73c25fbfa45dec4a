"""What machines take of the host's memory: proportional shares, so that a page that many have is counted once.

A clone maps its snapshot's memory privately. Of that file the pages that no clone has mapped are in nobody's share,
so it is counted whole and once, and what the clones' shares say of it is left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, NamedTuple

SNAPSHOT = "/memfd:swiftlet-snapshot"
"""How the daemon's descriptor of a snapshot's memory is called (node/snapshots.py)."""


class Share(NamedTuple):
    """Bytes of a process's proportional set size, and those of them that are of files in memory."""

    all: int
    in_memory_files: int


def share_of(text: str) -> Share:
    """The share that a smaps_rollup tells (Documentation/filesystems/proc.rst)."""
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        if name.startswith("Pss") and rest.split()[-1:] == ["kB"]:
            found[name] = int(rest.split()[0]) << 10
    return Share(found["Pss"], found["Pss_Shmem"])


def shares(pids: Iterable[int]) -> list[Share]:
    """The shares of processes that run."""
    found = []
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            found.append(share_of(file.read()))
    return found


def processes(guest: dict[str, Any]) -> list[int]:
    """QEMU and its servers: whoever is in a guest's control group. guest: as `inspect` tells."""
    folder = next(iter(guest["bundle"]["cgroup"]["paths"].values()))
    with open(f"{folder}/cgroup.procs") as file:
        return [int(line) for line in file]


def of_boots(found: Iterable[Share]) -> int:
    """Bytes that machines which were booted take."""
    return sum(share.all for share in found)


def of_clones(found: Iterable[Share], snapshot_bytes: int) -> int:
    """Bytes that clones take, with their snapshot's memory once."""
    return snapshot_bytes + sum(share.all - share.in_memory_files for share in found)


def snapshot_bytes(daemon: int) -> int:
    """Bytes of all snapshots' memories that a daemon holds."""
    total = 0
    folder = f"/proc/{daemon}/fd"
    for name in os.listdir(folder):
        try:
            if os.readlink(f"{folder}/{name}").startswith(SNAPSHOT):
                total += os.stat(f"{folder}/{name}").st_blocks * 512
        except FileNotFoundError:
            continue
    return total
