"""Bridges, veth pairs and network namespaces, through rtnetlink (pyroute2's IPRoute; its NDB is not used).

Synchronous and for one thread: making a namespace moves the calling thread into it and back. pyroute2 takes 100 ms
to import, so this module is imported by that thread only. Which names and addresses are used is left to `pool`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from typing import Any, NamedTuple

from pyroute2.iproute.linux import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from swiftlet.linux import namespace, syscall
from swiftlet.model.error import HostError

GUEST_INTERFACE = "eth0"

_TUNSETIFF = 0x400454CA
_TAP = 0x0002 | 0x1000 | 0x4000
"""IFF_TAP, IFF_NO_PI (frames as they are) and IFF_VNET_HDR (with virtio's header: linux/if_tun.h)."""

_SYSCTLS = (
    ("net/ipv4/ip_unprivileged_port_start", "0"),
    ("net/ipv4/ping_group_range", "0 2147483647"),
    ("net/ipv6/conf/default/disable_ipv6", "1"),
)
"""The first two as docker sets them: a guest's user may listen on port 80 and send pings without a capability."""


class End(NamedTuple):
    """The guest's end of a link, and the name of the host's end."""

    interface: str
    hardware: str
    address: IPv4Address
    prefix: int
    gateway: IPv4Address


class Links:
    """Netlink in the host's network namespace."""

    def __init__(self) -> None:
        self._host = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._netlink: Any = IPRoute()
        self._bridge = 0

    def close(self) -> None:
        """Close the sockets."""
        self._netlink.close()
        os.close(self._host)

    def networks(self, except_interface: str) -> list[IPv4Network]:
        """The IPv4 networks that the host has a route to, but for those of one interface."""
        skipped = _index(except_interface)
        found = []
        for route in self._netlink.get_routes(family=socket.AF_INET, table=254):
            if route.get("oif") != skipped:
                destination = route.get("dst") or "0.0.0.0"
                found.append(IPv4Network(f"{destination}/{route['dst_len']}", strict=False))
        return found

    def uplinks(self) -> list[str]:
        """The interfaces that a default route goes through."""
        routes = self._netlink.get_routes(family=socket.AF_INET, table=254)
        indexes = {route.get("oif") for route in routes if route["dst_len"] == 0 and route.get("oif")}
        return sorted(socket.if_indextoname(index) for index in indexes)

    def subnet_of(self, interface: str) -> IPv4Network | None:
        """The network of an interface's first IPv4 address, if the interface is there and has one."""
        index = _index(interface)
        for address in self._netlink.get_addr(family=socket.AF_INET, index=index) if index else ():
            return IPv4Network(f"{address.get('address')}/{address['prefixlen']}", strict=False)
        return None

    def ensure_bridge(self, name: str, subnet: IPv4Network, hardware: str) -> None:
        """A bridge with the subnet's first address. Its hardware address is fixed: else it changes with its ports."""
        with _told(f"bridge {name}"):
            if not _index(name):
                self._netlink.link("add", ifname=name, kind="bridge", address=hardware)
            self._bridge = _index(name)
            with contextlib.suppress(FileExistsError), _exists_is_fine():
                gateway = str(subnet.network_address + 1)
                self._netlink.addr("add", index=self._bridge, address=gateway, prefixlen=subnet.prefixlen)
            self._netlink.link("set", index=self._bridge, state="up")

    def interfaces(self, prefix: str) -> list[str]:
        """The host's interfaces whose names begin so."""
        return [name for _, name in socket.if_nameindex() if name.startswith(prefix)]

    def exists(self, interface: str) -> bool:
        """Whether the host has an interface of that name."""
        return _index(interface) != 0

    def remove(self, interface: str) -> None:
        """Remove an interface (a veth's other end goes with it); one that is gone is no error."""
        index = _index(interface)
        if index:
            with contextlib.suppress(NetlinkError):
                self._netlink.link("del", index=index)

    def make_namespace(self, end: End) -> int:
        """A network namespace with loopback and a link to the bridge, all up; a close-on-exec descriptor of it.

        Raises HostError, and FileExistsError when the host's interface is still there from an earlier guest.
        The namespace and both ends of its link vanish when nobody has it open and no process is in it.
        """
        syscall.unshare(namespace.NEWNET)
        try:
            fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                with _told(f"network of {end.address}"):
                    self._furnish(fd, end)
            except BaseException:
                os.close(fd)
                raise
        finally:
            syscall.setns(self._host, namespace.NEWNET)
        self._allow_hairpin(end.interface)
        return fd

    def make_tap(self, end: End) -> int:
        """A link to the bridge whose other end is a descriptor, for a machine; close-on-exec.

        It vanishes with its last descriptor. Raises HostError, and FileExistsError as `make_namespace`.
        """
        if self.exists(end.interface):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), end.interface)
        tap = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", end.interface.encode(), _TAP))
            with _told(f"network of {end.address}"):
                self._netlink.link("set", index=_index(end.interface), master=self._bridge, state="up")
        except BaseException:
            os.close(tap)
            raise
        self._allow_hairpin(end.interface)
        return tap

    def _allow_hairpin(self, interface: str) -> None:
        """Where br_netfilter is loaded, a guest's packet to a port that it published itself never leaves the bridge.

        It must then go out of the port that it came from. Such a packet is no reason to refuse a start.
        """
        with contextlib.suppress(NetlinkError):
            self._netlink.brport("set", index=_index(interface), mode=1)

    def _furnish(self, fd: int, end: End) -> None:
        """In the new namespace: settings, the link (made from the host's side, up and in the bridge), routes."""
        for name, value in _SYSCTLS:
            _set_if_there(name, value)
        peer = {"ifname": GUEST_INTERFACE, "net_ns_fd": fd, "address": end.hardware}
        with _exists_is_fine():
            self._netlink.link("add", ifname=end.interface, kind="veth", state="up", master=self._bridge, peer=peer)
        inside: Any = IPRoute()
        try:
            inside.link("set", index=1, state="up")
            index = _index(GUEST_INTERFACE)
            inside.addr("add", index=index, address=str(end.address), prefixlen=end.prefix)
            inside.link("set", index=index, state="up")
            inside.route("add", gateway=str(end.gateway))
        finally:
            inside.close()


def _index(interface: str) -> int:
    """The interface's number in this thread's namespace, 0 when it is not there."""
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        return 0


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        reason = os.strerror(error.code) if error.code else str(error)
        raise HostError(f"{what} cannot be set up: {reason}", "swiftlet doctor, or run with --network host") from None


@contextlib.contextmanager
def _exists_is_fine() -> Iterator[None]:
    """Netlink's EEXIST as the FileExistsError that it is."""
    try:
        yield
    except NetlinkError as error:
        if error.code != errno.EEXIST:
            raise
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None


def set_sysctl(name: str, value: str) -> None:
    """Write /proc/sys/NAME (slashes). A setting of the network is that of the calling thread's namespace."""
    with open(f"/proc/sys/{name}", "w") as file:
        file.write(value)


def get_sysctl(name: str) -> str:
    """Read /proc/sys/NAME; "" when this kernel has no such setting."""
    try:
        with open(f"/proc/sys/{name}") as file:
            return file.read().strip()
    except OSError:
        return ""


def _set_if_there(name: str, value: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        set_sysctl(name, value)
