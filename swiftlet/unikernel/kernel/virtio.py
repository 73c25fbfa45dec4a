"""The network card: a virtio device behind memory-mapped registers. Virtio 1.1, 2.6 (queues), 4.2 (registers), 5.1.

Frames come by interrupt. The interrupt only wakes the first processor, which looks at the queues by itself.
"""

from __future__ import annotations

from swiftlet.unikernel.kernel import memory
from swiftlet.unikernel.metal.words import (
    Device,
    Shared,
    Struct,
    address,
    array,
    at,
    barrier,
    many,
    pause,
    place,
    size_of,
    u8,
    u16,
    u32,
    u64,
)

FIRST, DISTANCE, PLACES = 0xFEB00000, 0x200, 32
"""QEMU 7.2, include/hw/i386/microvm: where a microvm's devices may be."""

MAGIC, VERSION, NETWORK = 0x74726976, 2, 1

ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK = 1, 2, 4, 8
"""Virtio 1.1, 2.1."""

FEATURE_MAC, FEATURE_VERSION_1 = 1 << 5, 1 << 32

RECEIVE, SEND = 0, 1
SLOTS = 128
"""Descriptors of a queue, each with a buffer of its own."""

BUFFER = 2048
HEADER = 12
"""Virtio 1.1, 5.1.6: struct virtio_net_hdr, with num_buffers."""

DEVICE_WRITES, NO_INTERRUPT = 2, 1

PATIENCE = 1 << 20
"""Turns of waiting for the device."""


class Registers(Device):
    """Virtio 1.1, 4.2.2."""

    magic: u32
    version: u32
    device: u32
    vendor: u32
    device_features: u32
    device_features_select: u32
    reserved = array(u32, 2)
    driver_features: u32
    driver_features_select: u32
    reserved_2 = array(u32, 2)
    queue_select: u32
    queue_most: u32
    queue_size: u32
    reserved_3 = array(u32, 2)
    queue_ready: u32
    reserved_4 = array(u32, 2)
    notify: u32
    reserved_5 = array(u32, 3)
    interrupt_status: u32
    interrupt_acknowledge: u32
    reserved_6 = array(u32, 2)
    status: u32
    reserved_7 = array(u32, 3)
    descriptors: u32
    descriptors_high: u32
    reserved_8 = array(u32, 2)
    available: u32
    available_high: u32
    reserved_9 = array(u32, 2)
    used: u32
    used_high: u32
    reserved_10 = array(u32, 22)
    mac_0: u8  # fields and no array: each is read by itself, as wide as it is
    mac_1: u8
    mac_2: u8
    mac_3: u8
    mac_4: u8
    mac_5: u8


class Descriptor(Shared):
    """Virtio 1.1, 2.6.5."""

    address: u64
    length: u32
    flags: u16
    next: u16


class Available(Shared):
    """Virtio 1.1, 2.6.6."""

    flags: u16
    index: u16
    ring = array(u16, SLOTS)


class UsedOne(Shared):
    """Virtio 1.1, 2.6.8."""

    id: u32
    length: u32


class Used(Shared):
    """Virtio 1.1, 2.6.8."""

    flags: u16
    index: u16
    ring = array(UsedOne, SLOTS)


class Queue(Struct):
    """A queue. seen: what was taken of the used ring. free: of the sending one, how many descriptors nobody has."""

    descriptors: u64
    available: u64
    used: u64
    buffers: u64
    seen: u64
    sent: u64


class Card(Struct):
    """The card. registers: 0 where there is none. mac: as a number, its first byte lowest."""

    registers: u64
    mac: u64
    receive = place(Queue)
    send = place(Queue)
    received: u64
    sent: u64
    dropped: u64


card = place(Card)


def begin() -> bool:
    """Find the card and set it up; whether there is one."""
    for i in range(PLACES):
        found = at(Registers, FIRST + i * DISTANCE)
        if found.magic == MAGIC and found.version == VERSION and found.device == NETWORK:
            card.registers = address(found)
            return set_up(found)
    return False


def set_up(device: Registers) -> bool:
    """Virtio 1.1, 3.1.1."""
    device.status = 0
    device.status = ACKNOWLEDGE | DRIVER
    device.driver_features_select = 0
    device.driver_features = FEATURE_MAC
    device.driver_features_select = 1
    device.driver_features = FEATURE_VERSION_1 >> 32
    device.status = ACKNOWLEDGE | DRIVER | FEATURES_OK
    if device.status & FEATURES_OK == 0:
        return False
    make(device, RECEIVE, card.receive)
    make(device, SEND, card.send)
    card.mac = device.mac_0 | device.mac_1 << 8 | device.mac_2 << 16
    card.mac = card.mac | device.mac_3 << 24 | device.mac_4 << 32 | device.mac_5 << 40
    for i in range(SLOTS):
        offer(i)
    device.status = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK
    device.notify = RECEIVE
    return True


def make(device: Registers, number: u64, queue: Queue) -> None:
    """Make a queue and tell the device of it."""
    queue.descriptors = memory.take(size_of(Descriptor) * SLOTS, 16)
    queue.available = memory.take(size_of(Available) + 2, 16)
    queue.used = memory.take(size_of(Used) + 2, 16)
    queue.buffers = memory.take(BUFFER * SLOTS, 4096)
    descriptors = many(Descriptor, queue.descriptors)
    for i in range(SLOTS):
        descriptors[i].address = queue.buffers + i * BUFFER
        descriptors[i].length = BUFFER
        descriptors[i].flags = 0 if number == SEND else DEVICE_WRITES
    if number == SEND:  # what was sent nobody waits for
        at(Available, queue.available).flags = NO_INTERRUPT
    device.queue_select = number
    device.queue_size = SLOTS
    device.descriptors = queue.descriptors
    device.descriptors_high = queue.descriptors >> 32
    device.available = queue.available
    device.available_high = queue.available >> 32
    device.used = queue.used
    device.used_high = queue.used >> 32
    device.queue_ready = 1


def offer(number: u64) -> None:
    """Give a receiving buffer to the device."""
    available = at(Available, card.receive.available)
    index = available.index
    available.ring[index % SLOTS] = number
    available.index = index + 1


def acknowledge() -> None:
    """Tell the device that its interrupt has come."""
    device = at(Registers, card.registers)
    device.interrupt_acknowledge = device.interrupt_status


def is_waiting() -> bool:
    """Whether a frame has come."""
    return card.registers != 0 and at(Used, card.receive.used).index != card.receive.seen & 0xFFFF


def next_frame() -> u64:
    """The slot of the next frame; SLOTS for none. It is the caller's until he offers it again."""
    if not is_waiting():
        return SLOTS
    return at(Used, card.receive.used).ring[card.receive.seen % SLOTS].id


def frame(slot: u64) -> u64:
    """Where a received frame begins."""
    return card.receive.buffers + slot * BUFFER + HEADER


def frame_length() -> u64:
    """Bytes of the next frame."""
    length = at(Used, card.receive.used).ring[card.receive.seen % SLOTS].length
    if length > BUFFER or length < HEADER:  # what no device does
        return 0
    return length - HEADER


def done(slot: u64) -> None:
    """The frame was read."""
    card.receive.seen += 1
    card.received += 1
    offer(slot)
    if card.receive.seen & 15 == 0:
        at(Registers, card.registers).notify = RECEIVE


def flush() -> None:
    """Wait until the device has sent what it was given, for a while."""
    queue = card.send
    for _ in range(PATIENCE):
        if at(Used, queue.used).index == queue.sent & 0xFFFF:
            return
        pause()


def room() -> u64:
    """Where the next frame to be sent is written; 0 when the queue is full."""
    queue = card.send
    outstanding = (queue.sent - at(Used, queue.used).index) & 0xFFFF
    if outstanding >= SLOTS:
        card.dropped += 1
        return 0
    start = queue.buffers + queue.sent % SLOTS * BUFFER
    memory.clear(start, HEADER + 64)  # no frame is padded with what another one held
    return start + HEADER


def send(length: u64) -> None:
    """Send what was written to `room`."""
    queue = card.send
    slot = queue.sent % SLOTS
    many(Descriptor, queue.descriptors)[slot].length = length + HEADER
    available = at(Available, queue.available)
    available.ring[queue.sent % SLOTS] = slot
    queue.sent += 1
    available.index = queue.sent
    barrier()
    card.sent += 1
    at(Registers, card.registers).notify = SEND
