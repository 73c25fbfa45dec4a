"""Counting what an installation has in the kernel and on disk, so that a test can say that nothing was left.

Other installations may run on this host at the same time, so only what can be told as this one's is counted.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from swiftlet.linux import cgroup
from tests.product import Product

LOCKS = {"store.lock", "collect.lock", "pins"}
"""Files that stay in tmp/: what the store's guard locks and notes in."""

PARTS = {"daemon": "swiftlet.api.daemon", "launcher": "swiftlet-launch", "log worker": "swiftlet-logs"}


class Census(NamedTuple):
    """What there is of one installation.

    namespaces: how many of each type its processes are in or hold open. descriptors: open ones of each process.
    kernel_mounts: how many mounts the launcher's namespace has. overlays: processes that see an overlay of ours.
    """

    guests: frozenset[str]
    names: int
    groups: frozenset[str]
    interfaces: int
    elements: int
    leases: int
    ranges: int
    mounts: tuple[str, ...]
    kernel_mounts: int
    overlays: int
    namespaces: dict[str, int]
    descriptors: dict[str, int]
    tmp: frozenset[str]
    processes: dict[str, int]

    def difference(self, other: Census) -> str:
        """What differs, a line for each."""
        pairs = zip(self._fields, self, other, strict=True)
        return "\n".join(f"{name}: {mine} against {theirs}" for name, mine, theirs in pairs if mine != theirs)


def take(product: Product) -> Census:
    """Count everything. The daemon and the launcher run."""
    root = product.instance.root
    parts = part_pids(product)
    leases = os.listdir(f"{root}/leases")
    return Census(
        guests=frozenset(os.listdir(f"{root}/guests")),
        names=len(os.listdir(f"{root}/names")),
        groups=groups(product),
        interfaces=interfaces(product),
        elements=len(elements(product)),
        leases=sum(not name.startswith("uid-") for name in leases),
        ranges=sum(name.startswith("uid-") for name in leases),
        mounts=tuple(line for line in _lines("/proc/self/mountinfo") if f"{root}/" in line),
        kernel_mounts=len(_lines(f"/proc/{parts['launcher']}/mountinfo")),
        overlays=len(processes_in_guests(product)),
        namespaces=namespaces(parts.values()),
        descriptors={name: len(descriptors(number)) for name, number in parts.items()},
        tmp=frozenset(os.listdir(f"{root}/tmp")) - LOCKS,
        processes=dict(Counter(name for name, _ in own_processes(product))),
    )


def groups(product: Product) -> frozenset[str]:
    """Ids of guests that have a control group."""
    return frozenset(cgroup.groups_below(cgroup.detect(), product.instance.cgroup))


def interfaces(product: Product) -> int:
    """Ends of guests' links in this network namespace."""
    return sum(name.startswith(f"swl{product.instance.tag}v") for _, name in socket.if_nameindex())


def elements(product: Product) -> list[Any]:
    """Every element of the maps of published ports."""
    argv = ["nft", "-j", "list", "table", "ip", product.instance.table]
    listed = subprocess.run(argv, capture_output=True, text=True)
    if listed.returncode:
        return []
    maps = [item["map"] for item in json.loads(listed.stdout)["nftables"] if "map" in item]
    return [element for each in maps for element in each.get("elem", [])]


def part_pids(product: Product) -> dict[str, int]:
    """The process number of each part. Raises KeyError while one is missing."""
    found: dict[str, int] = {}
    for name, number in own_processes(product):
        if name != "launcher" or any(comm(child) == PARTS["log worker"] for child in children(number)):
            found[name] = number  # a child that the launcher is setting up has its name
    return {name: found[name] for name in PARTS}


def own_processes(product: Product) -> Iterator[tuple[str, int]]:
    """(part, number) of the daemon's, launcher's and log worker's processes, and of whatever else runs as ours."""
    for number, line in product.processes().items():
        known = (name for name, mark in PARTS.items() if mark in (comm(number), *line.split()))
        yield next(known, comm(number) or "?"), number


def comm(number: int) -> str:
    """The name of a process; "" when it has gone."""
    return "".join(_lines(f"/proc/{number}/comm")).strip()


def children(number: int) -> list[int]:
    """The children of a process."""
    return [int(word) for line in _lines(f"/proc/{number}/task/{number}/children") for word in line.split()]


def processes_in_guests(product: Product) -> list[int]:
    """Every process of this host that has an overlay of ours as a mount: guests' own, and whatever forgot to end."""
    mark = f"upperdir={product.instance.root}/"
    found = []
    for number in filter(str.isdigit, os.listdir("/proc")):
        if any(mark in line for line in _lines(f"/proc/{number}/mountinfo")):
            found.append(int(number))
    return found


def namespaces(pids: Any) -> dict[str, int]:
    """How many namespaces of each type these processes are in or hold open, as a count of different ones."""
    seen: set[str] = set()
    for number in pids:
        links = [f"/proc/{number}/ns/{name}" for name in _listed(f"/proc/{number}/ns")]
        seen.update(_link(path) for path in links)
        seen.update(link for link in descriptors(number) if link.endswith("]") and link.split(":")[0] in _KINDS)
    return dict(Counter(link.partition(":")[0] for link in seen if link))


_KINDS = {"mnt", "pid", "net", "ipc", "uts", "user", "cgroup"}


def descriptors(number: int) -> list[str]:
    """What each open descriptor of a process leads to."""
    return sorted(_link(f"/proc/{number}/fd/{name}") for name in _listed(f"/proc/{number}/fd"))


def resident_kib(number: int) -> int:
    """Resident memory of a process in KiB."""
    return next(int(line.split()[1]) for line in _lines(f"/proc/{number}/status") if line.startswith("VmRSS"))


def _lines(path: str) -> list[str]:
    try:
        with open(path, errors="replace") as file:
            return file.readlines()
    except OSError:
        return []


def _listed(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
