"""Datagrams: each is answered from the address at which it came, also where the host has several: ip(7), IP_PKTINFO."""

from __future__ import annotations

from swiftlet.unikernel.linux import system
from swiftlet.unikernel.metal.words import (
    Struct,
    address,
    array,
    i64,
    many,
    place,
    size_of,
    swap16,
    swap32,
    system_call,
    u16,
    u32,
    u64,
    unsigned,
)

_INTERNET, _DATAGRAMS, _CLOSED_BY_EXEC = 2, 2, 0x80000  # AF_INET, SOCK_DGRAM, SOCK_CLOEXEC
_LEVEL, _PACKET_INFORMATION = 0, 8  # IPPROTO_IP, IP_PKTINFO
_AT_ONCE, _WHOLE_LENGTH = 0x40, 0x20  # MSG_DONTWAIT, MSG_TRUNC


class Address(Struct):
    """struct sockaddr_in. port, host: in network order."""

    family: u16
    port: u16
    host: u32
    zero: u64


class Control(Struct):
    """struct cmsghdr, and struct in_pktinfo behind it. local: of this host; destination: as the packet had it."""

    length: u64
    level: u32
    type: u32
    interface: u32
    local: u32
    destination: u32
    padding: u32


class Header(Struct):
    """struct msghdr."""

    name: u64
    name_length: u64
    parts: u64
    count: u64
    control: u64
    control_length: u64
    flags: u64


class Network(Struct):
    """socket: of all datagrams. peer, local: of the last: a sockaddr_in's first eight bytes, an address of ours."""

    socket: u64
    peer: u64
    local: u64
    address = place(Address)
    control = place(Control)
    header = place(Header)
    part = array(u64, 2)
    lengths = array(u32, 2)


network = place(Network)


def begin(host: u64, port: u64) -> i64:
    """Be there at an address and a port, both in the host's order: socket(2), bind(2)."""
    made = system_call(system.SOCKET, _INTERNET, _DATAGRAMS | _CLOSED_BY_EXEC, 0)
    if made < 0:
        return made
    network.socket = unsigned(made)
    network.lengths[0] = 1
    on = address(network.lengths)
    system_call(system.SOCKET_OPTION, network.socket, _LEVEL, _PACKET_INFORMATION, on, 4)
    network.address.family = _INTERNET
    network.address.port = swap16(port)
    network.address.host = swap32(host)
    refused = system_call(system.BIND, network.socket, address(network.address), size_of(Address))
    return refused if refused < 0 else made


def port() -> u64:
    """The port, in the host's order: getsockname(2)."""
    network.lengths[0] = size_of(Address)
    system_call(system.SOCKET_NAME, network.socket, address(network.address), address(network.lengths))
    return swap16(network.address.port)


def describe(start: u64, length: u64, control: u64) -> None:
    """Fill in what a datagram is made of. control: bytes of what comes with it."""
    network.part[0] = start
    network.part[1] = length
    network.header.name = address(network.address)
    network.header.name_length = size_of(Address)
    network.header.parts = address(network.part)
    network.header.count = 1
    network.header.control = address(network.control)
    network.header.control_length = control


def receive(start: u64, length: u64) -> i64:
    """The next datagram, if one is there: `peer` and `local` are its own. Returns its whole length: recvmsg(2)."""
    describe(start, length, size_of(Control))
    network.control.local = 0
    got = system_call(system.RECEIVE, network.socket, address(network.header), _AT_ONCE | _WHOLE_LENGTH)
    network.peer = many(u64, address(network.address))[0]
    network.local = network.control.local
    return got


def send(start: u64, length: u64, peer: u64, local: u64) -> i64:
    """Send a datagram from an address of this host's: sendmsg(2)."""
    describe(start, length, size_of(Control))
    many(u64, address(network.address))[0] = peer
    control = network.control
    control.length = size_of(Control) - 4  # without the padding
    control.level = _LEVEL
    control.type = _PACKET_INFORMATION
    control.interface = 0
    control.local = local
    control.destination = 0
    return system_call(system.SEND, network.socket, address(network.header), 0)
