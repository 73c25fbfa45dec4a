"""How the card is reached: on PCI where the machine has that, else behind memory-mapped registers.

What a card is asked and told is the same either way, and what it means is in `virtio`.
"""

from __future__ import annotations

from swiftlet.unikernel.kernel import pci, virtio_mmio, virtio_pci
from swiftlet.unikernel.metal.words import Struct, array, place, u64

QUEUES = 2


class Transport(Struct):
    """on_pci: whether the card is. bells: where it is told of its queues, on PCI."""

    on_pci: u64
    bells = array(u64, QUEUES)


transport = place(Transport)


def find() -> u64:
    """Find a card: 0, or a text that says why there is none.

    Where there is PCI, another device's registers may be at the place of a microvm's: nobody looks there.
    """
    if pci.begin():
        transport.on_pci = 1
        return virtio_pci.find()
    return virtio_mmio.find()


def reset() -> None:
    """Let the card forget what it was told."""
    if transport.on_pci:
        virtio_pci.reset()
    else:
        virtio_mmio.set_status(0)


def set_status(value: u64) -> None:
    """Say how far this driver is."""
    if transport.on_pci:
        virtio_pci.set_status(value)
    else:
        virtio_mmio.set_status(value)


def status() -> u64:
    """What the card says of it."""
    if transport.on_pci:
        return virtio_pci.status()
    return virtio_mmio.status()


def accept(features: u64) -> None:
    """Say what this driver knows."""
    if transport.on_pci:
        virtio_pci.accept(features)
    else:
        virtio_mmio.accept(features)


def listen() -> None:
    """Let the card interrupt this processor."""
    if transport.on_pci:
        virtio_pci.listen()


def add_queue(number: u64, size: u64, descriptors: u64, available: u64, used: u64, heard: bool) -> bool:
    """Tell the card of a queue; whether it takes it. heard: whether its interrupts are wanted."""
    if transport.on_pci == 0:
        return virtio_mmio.add_queue(number, size, descriptors, available, used)
    if not virtio_pci.add_queue(number, size, descriptors, available, used, heard):
        return False
    transport.bells[number] = virtio_pci.doorbell(number)
    return True


def ring(number: u64) -> None:
    """Tell the card that there is something in a queue."""
    if transport.on_pci:
        virtio_pci.ring(transport.bells[number], number)
    else:
        virtio_mmio.ring(number)


def acknowledge() -> None:
    """Tell the card that its interrupt has come."""
    if transport.on_pci:
        virtio_pci.acknowledge()
    else:
        virtio_mmio.acknowledge()


def mac() -> u64:
    """The card's address as a number, its first byte lowest."""
    if transport.on_pci:
        return virtio_pci.mac()
    return virtio_mmio.mac()
