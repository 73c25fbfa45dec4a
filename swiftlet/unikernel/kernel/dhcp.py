"""Messages of DHCP: RFC 2131, with options of RFC 2132. When which is sent is in `lease`."""

from __future__ import annotations

from swiftlet.unikernel.kernel import memory, net
from swiftlet.unikernel.metal.words import (
    Packed,
    Struct,
    array,
    at,
    many,
    place,
    size_of,
    swap16,
    swap32,
    u8,
    u16,
    u32,
    u64,
)

SERVER_PORT, CLIENT_PORT = 67, 68
ASK, ANSWER, ETHERNET, HARDWARE_BYTES = 1, 2, 1, 6
BROADCAST = 0x8000
"""The answer is to come to everybody: this machine has no address yet."""

COOKIE = 0x63538263
"""99, 130, 83, 99, as it lies there."""

PAD, END = 0, 255
MASK, ROUTER, WANTED_ADDRESS, SECONDS, KIND, SERVER, PARAMETERS, RENEWAL, REBINDING = 1, 3, 50, 51, 53, 54, 55, 58, 59
DISCOVER, OFFER, REQUEST, ACKNOWLEDGED, REFUSED = 1, 2, 3, 5, 6
"""RFC 2132, 9.6."""

LEAST = 300
"""Bytes of a message: RFC 1542, 2.1."""


class Packet(Packed):
    """RFC 2131, figure 1, with the four bytes that options begin with."""

    operation: u8
    hardware_kind: u8
    hardware_bytes: u8
    hops: u8
    id: u32
    seconds: u16
    flags: u16
    client: u32
    yours: u32
    server: u32
    relay: u32
    hardware: u64
    hardware_rest: u64
    names = array(u8, 192)
    cookie: u32


class Told(Struct):
    """What a server has said last: addresses in the host's order, times in seconds, 0 where it said nothing.

    hardware: of who sent it, the server or a router on the way to it.
    """

    address: u64
    mask: u64
    gateway: u64
    server: u64
    seconds: u64
    renewal: u64
    rebinding: u64
    hardware: u64


told = place(Told)


def say(kind: u64, id_: u64, hardware: u64, target: u64) -> None:
    """Send a request. While this machine has an address it asks for that one, else for what it was told of."""
    start = net.reply_room()
    if start == 0:
        return
    memory.clear(start, LEAST + 4)
    packet = at(Packet, start)
    packet.operation = ASK
    packet.hardware_kind = ETHERNET
    packet.hardware_bytes = HARDWARE_BYTES
    packet.id = id_
    packet.hardware = net.network.hardware
    packet.cookie = COOKIE
    packet.client = swap32(net.network.address)
    if net.network.address == 0:
        packet.flags = swap16(BROADCAST)
    write_options(start + size_of(Packet), kind)
    net.send(start, LEAST, hardware, target, SERVER_PORT, CLIENT_PORT)


def write_options(place_: u64, kind: u64) -> None:
    """What is asked, and what is to be told. RFC 2131, table 5."""
    options = many(u8, place_)
    options[0] = KIND
    options[1] = 1
    options[2] = kind
    options[3] = PARAMETERS
    options[4] = 5
    options[5] = MASK
    options[6] = ROUTER
    options[7] = SECONDS
    options[8] = RENEWAL
    options[9] = REBINDING
    length = 10
    if kind == REQUEST and net.network.address == 0:
        length = number_option(place_, length, WANTED_ADDRESS, told.address)
        length = number_option(place_, length, SERVER, told.server)
    options[length] = END


def number_option(options: u64, used: u64, kind: u64, value: u64) -> u64:
    """Write an option that is an address; how many bytes are used then."""
    bytes_ = many(u8, options + used)
    bytes_[0] = kind
    bytes_[1] = 4
    for i in range(4):
        bytes_[2 + i] = value >> (24 - 8 * i)
    return used + 6


def heard(id_: u64) -> u64:
    """The kind of the datagram, if it answers the request of this number, else 0; then what it says is in `told`."""
    start = net.datagram.data
    length = net.datagram.length
    if net.datagram.target_port != CLIENT_PORT or net.datagram.source_port != SERVER_PORT or length < size_of(Packet):
        return 0
    packet = at(Packet, start)
    if packet.operation != ANSWER or packet.id != id_ or packet.cookie != COOKIE:
        return 0
    if packet.hardware & net.EVERYBODY != net.network.hardware:
        return 0
    options = start + size_of(Packet)
    left = length - size_of(Packet)
    told.address = swap32(packet.yours)
    told.mask = number(options, left, MASK, 4)
    told.gateway = number(options, left, ROUTER, 4)
    told.server = number(options, left, SERVER, 4)
    told.seconds = number(options, left, SECONDS, 4)
    told.renewal = number(options, left, RENEWAL, 4)
    told.rebinding = number(options, left, REBINDING, 4)
    told.hardware = net.datagram.hardware
    return number(options, left, KIND, 1)


def number(options: u64, length: u64, kind: u64, size: u64) -> u64:
    """The first bytes of an option as a number; 0 where it is missing or too short."""
    bytes_ = many(u8, options)
    i = 0
    while i + 1 < length and bytes_[i] != END:
        if bytes_[i] == PAD:
            i += 1
            continue
        if i + 2 + bytes_[i + 1] > length:
            return 0
        if bytes_[i] == kind and bytes_[i + 1] >= size:
            result = 0
            for j in range(size):
                result = result << 8 | bytes_[i + 2 + j]
            return result
        i += 2 + bytes_[i + 1]
    return 0
