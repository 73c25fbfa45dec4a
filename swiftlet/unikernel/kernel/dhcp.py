"""An address by DHCP, where nobody has said one: RFC 2131, with options of RFC 2132. Asked for once, at the start."""

from __future__ import annotations

from swiftlet.unikernel.kernel import clock, memory, net
from swiftlet.unikernel.metal.words import (
    Packed,
    Struct,
    array,
    at,
    counter,
    many,
    pause,
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
EVERYBODY = 0xFFFFFFFF
ASK, ANSWER, ETHERNET, HARDWARE_BYTES = 1, 2, 1, 6
BROADCAST = 0x8000
"""The answer is to come to everybody: this machine has no address yet."""

COOKIE = 0x63538263
"""99, 130, 83, 99, as it lies there."""

PAD, END = 0, 255
MASK, ROUTER, WANTED_ADDRESS, KIND, SERVER, PARAMETERS = 1, 3, 50, 53, 54, 55
DISCOVER, OFFER, REQUEST, ACKNOWLEDGED = 1, 2, 3, 5

ATTEMPTS = 5
FIRST_WAIT = 250
"""Milliseconds that an answer may take at first, then twice as long each time."""


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


class Offer(Struct):
    """What a server has said, numbers in the host's order."""

    address: u64
    mask: u64
    gateway: u64
    server: u64
    id: u64


offer = place(Offer)


def ask() -> bool:
    """Get an address; whether there is one."""
    offer.id = counter() & 0xFFFFFFFF
    wait = FIRST_WAIT
    for _ in range(ATTEMPTS):
        if exchange(DISCOVER, OFFER, wait) and exchange(REQUEST, ACKNOWLEDGED, wait):
            net.network.address = offer.address
            net.network.mask = offer.mask
            net.network.gateway = offer.gateway
            return True
        wait += wait
    return False


def exchange(kind: u64, expected: u64, milliseconds: u64) -> bool:
    """Say something and wait for the answer to it."""
    say(kind)
    begin = counter()
    while not clock.older(begin, milliseconds):
        if net.receive() and net.datagram.target_port == CLIENT_PORT and heard(expected):
            return True
        pause()
    return False


def say(kind: u64) -> None:
    """Send a request to everybody."""
    start = net.reply_room()
    if start == 0:
        return
    memory.clear(start, size_of(Packet) + 32)
    packet = at(Packet, start)
    packet.operation = ASK
    packet.hardware_kind = ETHERNET
    packet.hardware_bytes = HARDWARE_BYTES
    packet.id = offer.id
    packet.flags = swap16(BROADCAST)
    packet.hardware = net.network.hardware
    packet.cookie = COOKIE
    options = many(u8, start + size_of(Packet))
    options[0] = KIND
    options[1] = 1
    options[2] = kind
    options[3] = PARAMETERS
    options[4] = 2
    options[5] = MASK
    options[6] = ROUTER
    length = 7
    if kind == REQUEST:
        length = number_option(start + size_of(Packet), length, WANTED_ADDRESS, offer.address)
        length = number_option(start + size_of(Packet), length, SERVER, offer.server)
    options[length] = END
    net.send(start, size_of(Packet) + length + 1, net.EVERYBODY, EVERYBODY, SERVER_PORT, CLIENT_PORT)


def number_option(options: u64, used: u64, kind: u64, value: u64) -> u64:
    """Write an option that is an address; how many bytes are used then."""
    bytes_ = many(u8, options + used)
    bytes_[0] = kind
    bytes_[1] = 4
    for i in range(4):
        bytes_[2 + i] = value >> (24 - 8 * i)
    return used + 6


def heard(expected: u64) -> bool:
    """Whether the datagram is an answer of the kind; then what it says is in `offer`."""
    start = net.datagram.data
    length = net.datagram.length
    if length < size_of(Packet):
        return False
    packet = at(Packet, start)
    ours = packet.operation == ANSWER and packet.id == offer.id and packet.cookie == COOKIE
    if not ours or number(start + size_of(Packet), length - size_of(Packet), KIND, 1) != expected:
        return False
    options = start + size_of(Packet)
    left = length - size_of(Packet)
    offer.address = swap32(packet.yours)
    offer.mask = number(options, left, MASK, 4)
    offer.gateway = number(options, left, ROUTER, 4)
    offer.server = number(options, left, SERVER, 4)
    return offer.address != 0


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
