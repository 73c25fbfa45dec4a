"""Published ports: who has which, the sockets that hold them, and their elements in the firewall's maps.

A published port is held by a bound socket that never listens, so that no other program of this host can take it
while the guest runs, and none that has it is robbed. Rules are applied in the network thread (`pool`), one
transaction for all the ports of a guest. Which guest wants which is left to `network`.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address

from swiftlet.model.error import ConflictError, HostError, InputError
from swiftlet.model.workload import Port
from swiftlet.node import firewall
from swiftlet.node.firewall import ANYWHERE, Published, Setting

_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_TIME_WAIT = "06"


class Held:
    """The ports of one guest, bound on this host."""

    def __init__(self, published: list[Published], sockets: list[socket.socket]) -> None:
        self.published = published
        self._sockets = sockets

    def close(self) -> None:
        """Let the ports go."""
        for sock in self._sockets:
            sock.close()


class Ports:
    """All ports that are published by this instance."""

    def __init__(self) -> None:
        self._held: dict[str, Held] = {}
        self._names: dict[tuple[str, int], list[tuple[str, str]]] = {}

    def hold(self, guest: str, name: str, address: str, ports: Sequence[Port]) -> list[Published]:
        """Bind what a guest publishes. All or none. Raises ConflictError naming the holder, InputError."""
        sockets: list[socket.socket] = []
        published: list[Published] = []
        try:
            for port in ports:
                host_ip = _host_ip(port)
                sockets.append(self._bind(port, host_ip))
                number = sockets[-1].getsockname()[1]
                published.append(Published(port.protocol, host_ip, number, address, port.guest))
        except BaseException:
            Held([], sockets).close()
            raise
        self._held[guest] = Held(published, sockets)
        for item in published:
            self._names.setdefault((item.protocol, item.host_port), []).append((guest, name))
        return published

    def release(self, guest: str) -> list[Published]:
        """Unbind a guest's ports and return what they were."""
        held = self._held.pop(guest, None)
        if held is None:
            return []
        held.close()
        for item in held.published:
            key = (item.protocol, item.host_port)
            self._names[key] = [holder for holder in self._names[key] if holder[0] != guest]
            if not self._names[key]:
                del self._names[key]
        return held.published

    def everything(self) -> list[Published]:
        """Every port that is held."""
        return [port for held in self._held.values() for port in held.published]

    def insert(self, setting: Setting, published: list[Published]) -> None:
        """Put ports into the maps; when somebody has flushed our table, make it anew with all that is held."""
        try:
            firewall.apply(firewall.publish(setting, published))
        except HostError:
            firewall.apply(firewall.base_rules(setting) + firewall.publish(setting, self.everything()))

    def take_out(self, setting: Setting, published: list[Published]) -> None:
        """Take ports out of the maps; when they are not there as they should be, make the table anew."""
        try:
            firewall.apply(firewall.withdraw(setting, published))
        except HostError:
            firewall.apply(firewall.base_rules(setting) + firewall.publish(setting, self.everything()))

    def _bind(self, port: Port, host_ip: str) -> socket.socket:
        try:
            return _bound(port, host_ip, reuse=False)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise InputError(f"{host_ip} is no address of this host", "swiftlet run -p PORT:PORT for all") from None
            if error.errno != errno.EADDRINUSE:
                raise HostError(f"port {port.host}/{port.protocol} cannot be had: {error.strerror}") from None
        holders = _sockets_on(port.protocol, port.host)
        if holders and all(state == _TIME_WAIT for state, _ in holders):
            return _bound(port, host_ip, reuse=True)  # only what TCP remembers of a server that has ended
        raise self._conflict(port, host_ip, [inode for _, inode in holders])

    def _conflict(self, port: Port, host_ip: str, inodes: list[str]) -> ConflictError:
        ours = self._names.get((port.protocol, port.host))
        holder = f"guest {ours[0][1]}" if ours else _process_with(inodes)
        where = "" if host_ip == ANYWHERE else f"{host_ip}:"
        text = f"port {where}{port.host}/{port.protocol} is in use by {holder}"
        protocol = "" if port.protocol == "tcp" else f"/{port.protocol}"
        return ConflictError(text, f"publish on another: -p {port.host + 1}:{port.guest}{protocol}")


def _host_ip(port: Port) -> str:
    if port.host_ip in ("", ANYWHERE):
        return ANYWHERE
    try:
        return str(IPv4Address(port.host_ip))
    except ValueError:
        raise InputError(f"port {port.host_ip}:{port.host}:{port.guest}: not an IPv4 address") from None


def _bound(port: Port, host_ip: str, *, reuse: bool) -> socket.socket:
    sock = socket.socket(socket.AF_INET, _KINDS[port.protocol] | socket.SOCK_CLOEXEC)
    try:
        if reuse:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host_ip, port.host))
    except OSError:
        sock.close()
        raise
    return sock


def _sockets_on(protocol: str, port: int) -> list[tuple[str, str]]:
    """(state, inode) of every socket bound to a port: /proc/net/tcp of `Documentation/networking/proc_net_tcp.rst`."""
    found = []
    for table in (protocol, f"{protocol}6"):
        try:
            with open(f"/proc/net/{table}") as file:
                lines = file.readlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if int(fields[1].rpartition(":")[2], 16) == port:
                found.append((fields[3], fields[9]))
    return found


def _link(path: str) -> str:
    """Where a link leads, "" when it is gone: a descriptor may be closed while its process is looked at."""
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _process_with(inodes: list[str]) -> str:
    """The process that has one of these sockets open, for people. A slow search; only for an error's sake."""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            links = (_link(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd"))
            if wanted.isdisjoint(links):
                continue
            with open(f"/proc/{pid}/comm") as file:
                return f"process {pid} ({file.read().strip()})"
        except OSError:
            continue
    return "another program (or another swiftlet)"
