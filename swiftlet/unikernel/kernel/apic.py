"""The interrupt controllers: a processor's own (xAPIC or x2APIC) and the one for devices. Intel SDM 3, chapter 11."""

from __future__ import annotations

from swiftlet.unikernel.metal.words import (
    Device,
    Struct,
    array,
    at,
    cpuid,
    pause,
    place,
    read_msr,
    u32,
    u64,
    write_msr,
)

APIC_BASE = 0x1B
"""IA32_APIC_BASE: where it is, and in which mode."""

EXTENDED, ENABLED = 1 << 10, 1 << 11

X2APIC = 0x800
"""The first register as an MSR (Intel SDM 3, 11.12.1): as memory a register lies sixteen times as far."""

ID, EOI, SPURIOUS, COMMAND, COMMAND_HIGH = 0x2, 0xB, 0xF, 0x30, 0x31
TIMER, TIMER_COUNT, TIMER_NOW, TIMER_DIVIDE = 0x32, 0x38, 0x39, 0x3E
PENDING = 1 << 12

BY_128 = 0xA
"""Intel SDM 3, figure 11-10: the timer counts every 128th tick of the bus, so it may be set for nine minutes."""

INIT_OTHERS = 0xC4500
START_OTHERS = 0xC4608
"""To all but itself: INIT, and start-up at page 8, asserted (Intel SDM 3, 11.6.1)."""

DEVICE_VECTOR, WAKE_VECTOR, ABORT_VECTOR, TIMER_VECTOR, CARD_VECTOR, SPURIOUS_VECTOR = 32, 56, 57, 58, 59, 63
LINES = 24
"""Of each controller for devices."""

MOST = 4
USUAL = 0xFEC00000


class Controller(Struct):
    """This machine's interrupt controllers. io: where those for devices are, so many of them."""

    extended: u64
    base: u64
    ios: u64
    io = array(u64, MOST)


controller = place(Controller)


class Io(Device):
    """82093AA: a register is selected, then read or written."""

    select: u32
    pad: u32
    pad2: u64
    window: u32


def begin() -> None:
    """Choose the mode that this machine has, and turn this processor's own on."""
    controller.base = read_msr(APIC_BASE) & 0xFFFFFF000
    controller.extended = cpuid(1, 0, 2) >> 21 & 1
    enable()


def enable() -> None:
    """Turn this processor's own on."""
    if controller.extended:
        write_msr(APIC_BASE, read_msr(APIC_BASE) | EXTENDED | ENABLED)
    write(SPURIOUS, 0x100 | SPURIOUS_VECTOR)
    write(TIMER_DIVIDE, BY_128)
    write(TIMER, 1 << 16 | TIMER_VECTOR)


def read(register: u64) -> u64:
    """A register."""
    if controller.extended:
        return read_msr(X2APIC + register)
    return at(Register, controller.base + (register << 4)).value


class Register(Device):
    """One register."""

    value: u32


def write(register: u64, value: u64) -> None:
    """Write a register."""
    if controller.extended:
        write_msr(X2APIC + register, value)
    else:
        at(Register, controller.base + (register << 4)).value = value


def identity() -> u64:
    """This processor's number."""
    return read(ID) if controller.extended else read(ID) >> 24


def finish() -> None:
    """The interrupt has been served."""
    write(EOI, 0)


def send(target: u64, vector: u64) -> None:
    """Interrupt another processor."""
    command(target, 0x4000 | vector)


def command(target: u64, value: u64) -> None:
    """Write the interrupt command, and wait until it has left."""
    if controller.extended:
        write_msr(X2APIC + COMMAND, target << 32 | value)
    else:
        write(COMMAND_HIGH, target << 24)
        write(COMMAND, value)
        while read(COMMAND) & PENDING:
            pause()


def once(ticks: u64) -> None:
    """Interrupt this processor after so many ticks of the timer; 0 for never."""
    write(TIMER, TIMER_VECTOR if ticks else 1 << 16 | TIMER_VECTOR)
    write(TIMER_COUNT, ticks)


def add_io(address: u64) -> None:
    """There is one more controller for devices."""
    if controller.ios < MOST:
        controller.io[controller.ios] = address
        controller.ios += 1


def route_all(target: u64) -> None:
    """Let every line of every device interrupt one processor: it looks by itself what has come."""
    if controller.ios == 0:
        add_io(USUAL)
    for i in range(controller.ios):
        for line in range(LINES):
            route(controller.io[i], line, target)


def route(place_: u64, line: u64, target: u64) -> None:
    """Let a device's line interrupt a processor, when it rises."""
    io = at(Io, place_)
    io.select = 0x10 + line * 2 + 1
    io.window = target << 24
    io.select = 0x10 + line * 2
    io.window = DEVICE_VECTOR + line
