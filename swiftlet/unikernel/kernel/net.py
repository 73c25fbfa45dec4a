"""Ethernet, ARP, IPv4, ICMP echo and UDP: as much as a server needs, which answers whoever asked.

RFC 826 (ARP), 791 (IP), 792 (ICMP), 768 (UDP), 1071 (the checksum). A reply goes to the address from which the request
came, so nobody has to be asked for one. What is wrong in a packet is counted, and the packet dropped.
"""

from __future__ import annotations

from swiftlet.unikernel.kernel import console, memory, virtio
from swiftlet.unikernel.metal.words import (
    Packed,
    Struct,
    address,
    array,
    at,
    many,
    place,
    size_of,
    swap16,
    swap32,
    text,
    u8,
    u16,
    u32,
    u64,
)

IP, ARP = 0x0800, 0x0806
ICMP, UDP = 1, 17
REQUEST, ANSWER = 1, 2
ECHO_ANSWER, ECHO = 0, 8
LIVE = 64
NOT_CUT = 0x4000

EVERYBODY = 0xFFFFFFFFFFFF
MOST = 1500
LARGEST = MOST - 28
"""Bytes of the largest datagram that is not cut in pieces."""


class Ethernet(Packed):
    """A frame's header."""

    target = array(u8, 6)
    source = array(u8, 6)
    kind: u16


class Arp(Packed):
    """RFC 826, for Ethernet and IPv4."""

    hardware: u16
    protocol: u16
    sizes: u16
    operation: u16
    sender = array(u8, 6)
    sender_ip: u32
    target = array(u8, 6)
    target_ip: u32


class Ip(Packed):
    """RFC 791, 3.1."""

    version: u8
    service: u8
    length: u16
    id: u16
    fragment: u16
    live: u8
    protocol: u8
    checksum: u16
    source: u32
    target: u32


class Echo(Packed):
    """RFC 792."""

    kind: u8
    code: u8
    checksum: u16


class Udp(Packed):
    """RFC 768."""

    source: u16
    target: u16
    length: u16
    checksum: u16


class Network(Struct):
    """This machine's place, addresses as numbers in the host's order; and what was dropped, by reason."""

    hardware: u64
    address: u64
    mask: u64
    gateway: u64
    malformed: u64
    foreign: u64
    fragments: u64
    checksums: u64
    unknown: u64
    echoes: u64


class Datagram(Struct):
    """A received datagram: whence, to which port, and where it lies."""

    source: u64
    source_port: u64
    target_port: u64
    hardware: u64
    data: u64
    length: u64


network = place(Network)
datagram = place(Datagram)


def receive() -> bool:
    """Look at a frame, if one has come; whether it is a datagram for this machine, in `datagram`."""
    slot = virtio.next_frame()
    if slot >= virtio.SLOTS:
        return False
    length = virtio.frame_length()
    memory.copy(addressed(), virtio.frame(slot), length)
    virtio.done(slot)
    return taken(addressed(), length)


class Buffer(Struct):
    """A frame that is looked at."""

    bytes = array(u8, 2048)


buffer = place(Buffer)


def addressed() -> u64:
    """Where the frame lies that is looked at."""
    return address(buffer)


def taken(frame: u64, length: u64) -> bool:
    """Answer a frame, or find the datagram in it."""
    if length < 14:
        network.malformed += 1
        return False
    header = at(Ethernet, frame)
    kind = swap16(header.kind)
    if kind == ARP and length >= 14 + size_of(Arp):
        asked(frame)
    elif kind == IP and length >= 14 + size_of(Ip):
        return internet(frame, length - 14)
    return False


def asked(frame: u64) -> None:
    """Answer who asks for this machine's address."""
    arp = at(Arp, frame + 14)
    if swap16(arp.operation) != REQUEST or swap32(arp.target_ip) != network.address or network.address == 0:
        return
    out = virtio.room()
    if out == 0:
        return
    memory.copy(out, frame, 14 + size_of(Arp))
    answer = at(Arp, out + 14)
    answer.operation = swap16(ANSWER)
    set_mac(address(answer.target), mac_at(address(arp.sender)))
    answer.target_ip = arp.sender_ip
    set_mac(address(answer.sender), network.hardware)
    answer.sender_ip = arp.target_ip
    ethernet(out, mac_at(address(arp.sender)), ARP)
    virtio.send(60)


def mac_at(place: u64) -> u64:
    """A hardware address as a number."""
    return many(u64, place)[0] & EVERYBODY


def set_mac(place: u64, mac: u64) -> None:
    """Write a hardware address."""
    bytes_ = many(u8, place)
    for i in range(6):
        bytes_[i] = mac >> (8 * i)


def ethernet(frame: u64, target: u64, kind: u64) -> None:
    """Write a frame's header."""
    set_mac(frame, target)
    set_mac(frame + 6, network.hardware)
    at(Ethernet, frame).kind = swap16(kind)


def internet(frame: u64, length: u64) -> bool:
    """Look at an IP packet."""
    ip = at(Ip, frame + 14)
    total = swap16(ip.length)
    if ip.version != 0x45 or total > length or total < size_of(Ip):
        network.malformed += 1
        return False
    if folded(summed(frame + 14, size_of(Ip), 0)) != 0xFFFF:
        network.checksums += 1
        return False
    target = swap32(ip.target)
    if target != network.address and target != 0xFFFFFFFF:
        network.foreign += 1
        return False
    if swap16(ip.fragment) & ~NOT_CUT:
        network.fragments += 1
        return False
    body = frame + 14 + size_of(Ip)
    size = total - size_of(Ip)
    if ip.protocol == ICMP and size >= 8:
        echo(frame, body, size)
    elif ip.protocol == UDP and size >= size_of(Udp):
        return user_datagram(frame, body, size)
    else:
        network.unknown += 1
    return False


def echo(frame: u64, body: u64, size: u64) -> None:
    """Answer an echo request."""
    asked_for = at(Echo, body)
    if asked_for.kind != ECHO or folded(summed(body, size, 0)) != 0xFFFF or size > LARGEST:
        network.unknown += 1
        return
    out = virtio.room()
    if out == 0:
        return
    network.echoes += 1
    ip = at(Ip, frame + 14)
    to = out + 14 + size_of(Ip)
    memory.copy(to, body, size)
    answer = at(Echo, to)
    answer.kind = ECHO_ANSWER
    answer.checksum = 0
    answer.checksum = folded(summed(to, size, 0)) ^ 0xFFFF
    finish(out, mac_at(frame + 6), ICMP, swap32(ip.source), size)


def user_datagram(frame: u64, body: u64, size: u64) -> bool:
    """Look at a datagram."""
    udp = at(Udp, body)
    length = swap16(udp.length)
    if length < size_of(Udp) or length > size:
        network.malformed += 1
        return False
    ip = at(Ip, frame + 14)
    if udp.checksum and folded(summed(body, length, pseudo(ip, length))) != 0xFFFF:
        network.checksums += 1
        return False
    datagram.source = swap32(ip.source)
    datagram.source_port = swap16(udp.source)
    datagram.target_port = swap16(udp.target)
    datagram.hardware = mac_at(frame + 6)
    datagram.data = body + size_of(Udp)
    datagram.length = length - size_of(Udp)
    return True


def pseudo(ip: Ip, length: u64) -> u64:
    """The sum over the header that is not sent (RFC 768)."""
    source = ip.source
    target = ip.target
    return (source & 0xFFFF) + (source >> 16) + (target & 0xFFFF) + (target >> 16) + swap16(UDP) + swap16(length)


def summed(start: u64, count: u64, before: u64) -> u64:
    """The sum of 16-bit words as they lie there (RFC 1071)."""
    total = before
    halves = many(Half, start)
    for i in range(count >> 1):
        total += halves[i].value
    if count & 1:
        total += many(u8, start)[count - 1]
    return total


class Half(Packed):
    """Two bytes, wherever they lie."""

    value: u16


def folded(total: u64) -> u64:
    """A sum as 16 bits, with what was carried."""
    result = total
    while result >> 16:
        result = (result & 0xFFFF) + (result >> 16)
    return result


def tell() -> None:
    """Say this machine's address on the console."""
    console.say(text("network "))
    console.say_address(network.address)
    console.line()


def reply_room() -> u64:
    """Where the data of the next datagram is written; 0 when there is no room."""
    out = virtio.room()
    if out == 0:
        virtio.flush()
        out = virtio.room()
    return out + 14 + size_of(Ip) + size_of(Udp) if out else 0


def send(data: u64, length: u64, hardware: u64, target: u64, target_port: u64, source_port: u64) -> None:
    """Send a datagram that was written to `reply_room`."""
    body = data - size_of(Udp)
    udp = at(Udp, body)
    udp.source = swap16(source_port)
    udp.target = swap16(target_port)
    udp.length = swap16(length + size_of(Udp))
    udp.checksum = 0
    frame = body - size_of(Ip) - 14
    ip = at(Ip, frame + 14)
    ip.source = swap32(network.address)
    ip.target = swap32(target)
    checksum = folded(summed(body, length + size_of(Udp), pseudo(ip, length + size_of(Udp)))) ^ 0xFFFF
    udp.checksum = checksum if checksum else 0xFFFF
    finish(frame, hardware, UDP, target, length + size_of(Udp))


def finish(frame: u64, hardware: u64, protocol: u64, target: u64, size: u64) -> None:
    """Write the headers before a packet's body, and send it; without an address nobody but everybody is spoken to."""
    if network.address == 0 and target != 0xFFFFFFFF:
        return
    ip = at(Ip, frame + 14)
    ip.version = 0x45
    ip.service = 0
    ip.length = swap16(size_of(Ip) + size)
    ip.id = 0
    ip.fragment = swap16(NOT_CUT)
    ip.live = LIVE
    ip.protocol = protocol
    ip.checksum = 0
    ip.source = swap32(network.address)
    ip.target = swap32(target)
    ip.checksum = folded(summed(frame + 14, size_of(Ip), 0)) ^ 0xFFFF
    ethernet(frame, hardware, IP)
    length = 14 + size_of(Ip) + size
    virtio.send(length if length > 60 else 60)
