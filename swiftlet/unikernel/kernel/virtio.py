"""The network card: a virtio device and its queues, however it is reached (`transport`). Virtio 1.1, 2.6, 3.1, 5.1.

Frames come by interrupt. The interrupt only wakes the first processor, which looks at the queues by itself.
"""

from __future__ import annotations

from swiftlet.unikernel.kernel import console, memory, transport
from swiftlet.unikernel.metal.words import (
    Shared,
    Struct,
    array,
    at,
    barrier,
    many,
    pause,
    place,
    size_of,
    text,
    u16,
    u32,
    u64,
)

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
    """The card. mac: as a number, its first byte lowest."""

    is_there: u64
    mac: u64
    receive = place(Queue)
    send = place(Queue)
    received: u64
    sent: u64
    dropped: u64


card = place(Card)


def begin() -> bool:
    """Find the card and set it up; whether there is one. Says why where there is none."""
    why = transport.find()
    if why == 0 and not set_up():
        why = text("the network card cannot do what this driver needs")
    if why:
        console.say(why)
        console.line()
        return False
    card.is_there = 1
    return True


def set_up() -> bool:
    """Virtio 1.1, 3.1.1."""
    transport.reset()
    transport.set_status(ACKNOWLEDGE | DRIVER)
    transport.accept(FEATURE_MAC | FEATURE_VERSION_1)
    transport.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK)
    if transport.status() & FEATURES_OK == 0:
        return False
    transport.listen()
    if not make(RECEIVE, card.receive) or not make(SEND, card.send):
        return False
    card.mac = transport.mac()
    for i in range(SLOTS):
        offer(i)
    transport.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK)
    transport.ring(RECEIVE)
    return True


def make(number: u64, queue: Queue) -> bool:
    """Make a queue and tell the card of it; whether it takes it."""
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
    return transport.add_queue(number, SLOTS, queue.descriptors, queue.available, queue.used, number == RECEIVE)


def offer(number: u64) -> None:
    """Give a receiving buffer to the device."""
    available = at(Available, card.receive.available)
    index = available.index
    available.ring[index % SLOTS] = number
    available.index = index + 1


def acknowledge() -> None:
    """Tell the device that its interrupt has come."""
    if card.is_there:
        transport.acknowledge()


def is_waiting() -> bool:
    """Whether a frame has come."""
    return card.is_there != 0 and at(Used, card.receive.used).index != card.receive.seen & 0xFFFF


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
        transport.ring(RECEIVE)


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
    transport.ring(SEND)
