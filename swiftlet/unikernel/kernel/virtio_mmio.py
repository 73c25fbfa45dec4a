"""A virtio network card behind memory-mapped registers, as a microvm has it. Virtio 1.1, 4.2."""

from __future__ import annotations

from swiftlet.unikernel.metal.words import Device, Struct, address, array, at, place, text, u8, u32, u64

FIRST, DISTANCE, PLACES = 0xFEB00000, 0x200, 32
"""QEMU 7.2, include/hw/i386/microvm: where a microvm's devices may be."""

MAGIC, NETWORK = 0x74726976, 1
OLD, VERSION = 1, 2
"""Virtio 1.1, 4.2.2 and 4.2.4."""


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


class Place(Struct):
    """Where the card's registers lie."""

    registers: u64


card = place(Place)


def find() -> u64:
    """Find a card: 0, or a text that says why there is none."""
    why = text("no network card was found")
    for i in range(PLACES):
        found = at(Registers, FIRST + i * DISTANCE)
        if found.magic == MAGIC and found.device == NETWORK:
            if found.version == VERSION:
                card.registers = address(found)
                return 0
            if found.version == OLD:
                why = text("the network card speaks old virtio: -global virtio-mmio.force-legacy=false")
    return why


def set_status(value: u64) -> None:
    """Say how far this driver is; 0 resets the card."""
    at(Registers, card.registers).status = value


def status() -> u64:
    """What the card says of it."""
    return at(Registers, card.registers).status


def accept(features: u64) -> None:
    """Say what this driver knows."""
    device = at(Registers, card.registers)
    device.driver_features_select = 0
    device.driver_features = features
    device.driver_features_select = 1
    device.driver_features = features >> 32


def add_queue(number: u64, size: u64, descriptors: u64, available: u64, used: u64) -> bool:
    """Tell the card of a queue; whether it takes it. Virtio 1.1, 4.2.3.2."""
    device = at(Registers, card.registers)
    device.queue_select = number
    if device.queue_most < size:
        return False
    device.queue_size = size
    device.descriptors = descriptors
    device.descriptors_high = descriptors >> 32
    device.available = available
    device.available_high = available >> 32
    device.used = used
    device.used_high = used >> 32
    device.queue_ready = 1
    return True


def ring(number: u64) -> None:
    """Tell the card that there is something in a queue."""
    at(Registers, card.registers).notify = number


def acknowledge() -> None:
    """Tell the card that its interrupt has come."""
    device = at(Registers, card.registers)
    device.interrupt_acknowledge = device.interrupt_status


def mac() -> u64:
    """Its address as a number, the first byte lowest."""
    told = at(Registers, card.registers)
    low = told.mac_0 | told.mac_1 << 8 | told.mac_2 << 16 | told.mac_3 << 24
    return low | told.mac_4 << 32 | told.mac_5 << 40
