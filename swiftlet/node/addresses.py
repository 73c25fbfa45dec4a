"""Addresses of guests: which subnet this instance takes, and who holds which address of it.

An address is leased by creating `leases/ADDRESS` exclusively and held until that file is removed. Names of
interfaces and hardware addresses follow from the address, so that nothing else needs to be remembered. What an
address is used for is left to `network`.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

from swiftlet.model.error import HostError

DEFAULT_SUBNET = IPv4Network("10.63.0.0/16")
"""Of the private ranges (RFC 1918), one that neither docker, podman, libvirt nor Kubernetes takes by default."""

_CANDIDATES = [IPv4Network(f"10.{number}.0.0/16") for number in range(64, 240)]


def choose_subnet(tag: str, taken: Iterable[IPv4Network]) -> IPv4Network:
    """The /16 of the instance with `tag`, none of which is routed by the host already.

    The default instance takes 10.63.0.0/16 where it can; the others start their search at a place that follows
    from the tag. Raises HostError when every candidate is taken.
    """
    used = [network for network in taken if network.prefixlen > 0]
    start = int(tag, 16) % len(_CANDIDATES) if tag else 0
    ordered = _CANDIDATES[start:] + _CANDIDATES[:start]
    for candidate in ordered if tag else [DEFAULT_SUBNET, *ordered]:
        if not any(candidate.overlaps(network) for network in used):
            return candidate
    raise HostError(
        "no free /16 below 10.0.0.0/8 for the guests' network", "remove a route, or run with --network none"
    )


def hardware_address(address: IPv4Address) -> str:
    """A locally administered MAC address that follows from the IPv4 address."""
    return "02:42:" + ":".join(f"{byte:02x}" for byte in address.packed)


class Addresses:
    """The leases of one subnet; its first address is the bridge's own. Not thread-safe: one thread owns it."""

    def __init__(self, folder: str, subnet: IPv4Network) -> None:
        self._folder = folder
        self.subnet = subnet
        self._base = int(subnet.network_address)
        self.last = subnet.num_addresses - 2
        self.gateway = self.address(1)
        self._free: list[int] = []
        self._next = 2

    def address(self, number: int) -> IPv4Address:
        """The address with that number in the subnet."""
        return IPv4Address(self._base + number)

    def number(self, address: str) -> int:
        """An address's number in the subnet, 0 when it is not of it. Raises ValueError for what is no address."""
        value = IPv4Address(address)
        return int(value) - self._base if value in self.subnet else 0

    def lease(self, owner: str) -> int:
        """Lease the lowest address that was given back, else the next; returns its number. `owner` is written down.

        Raises HostError when none is left, OSError when the disk refuses.
        """
        while self._free:
            number = heapq.heappop(self._free)
            if self._create(number, owner):
                return number
        while self._next <= self.last:
            self._next += 1
            if self._create(self._next - 1, owner):
                return self._next - 1
        raise HostError(f"all addresses of {self.subnet} are in use", "remove guests that are not needed")

    def _create(self, number: int, owner: str) -> bool:
        try:
            handle = os.open(self._path(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return False
        os.write(handle, owner.encode())
        os.close(handle)
        return True

    def release(self, number: int) -> None:
        """Give an address back; it is leased again as soon as possible, so that few are ever in use."""
        try:
            os.unlink(self._path(number))
        except FileNotFoundError:
            return
        heapq.heappush(self._free, number)

    def keep_only(self, numbers: set[int]) -> list[int]:
        """Remove every lease whose number is not among `numbers`; returns those that were removed."""
        removed = []
        for name in os.listdir(self._folder):
            try:
                number = self.number(name)
            except ValueError:
                continue  # not an address: a range of user ids
            if number not in numbers:
                os.unlink(f"{self._folder}/{name}")
                removed.append(number)
        self._next = max(numbers, default=1) + 1
        self._free = sorted(set(range(2, self._next)) - numbers)
        return removed

    def _path(self, number: int) -> str:
        return f"{self._folder}/{self.address(number)}"
