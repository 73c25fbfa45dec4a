"""PCI: every function of the machine, its registers, base addresses and capabilities.

PCI Local Bus Specification 3.0 ("PCI") and PCI-to-PCI Bridge Architecture Specification 1.2 ("Bridge"). A function is
known by the number that the address port wants of it: bus, device and function. What a function does is not known here.
"""

from __future__ import annotations

from swiftlet.unikernel.metal.words import Struct, array, in32, out32, place, u64

ADDRESS_PORT, DATA_PORT, ENABLE = 0xCF8, 0xCFC, 1 << 31
"""PCI 3.2.2.3.2: configuration mechanism #1."""

IDENTITY, COMMAND, CLASS, HEADER, BASES, BUSES, CAPABILITIES = 0x00, 0x04, 0x08, 0x0C, 0x10, 0x18, 0x34
"""PCI 6.1, figure 6-1; Bridge 3.2, figure 3-2. Registers are read and written four bytes at a time."""

NOBODY = 0xFFFF
"""PCI 6.1: the vendor where there is no function."""

BRIDGE, SEVERAL = 1, 0x80
"""PCI 6.2.1: header types; the bit says that there are more functions than the first."""

MEMORY, MASTER, SILENT = 1 << 1, 1 << 2, 1 << 10
"""PCI 6.2.2, table 6-1: bits of the command. SILENT: no interrupt by a line."""

HAS_CAPABILITIES = 1 << 20
"""PCI 6.2.3, table 6-2: a bit of the status, which is the command's upper half."""

PORTS, WIDE, KIND = 1, 4, 6
"""PCI 6.2.5.1: bits of a base address."""

DEVICES, FUNCTIONS = 32, 8
LONGEST = 48
"""Capabilities that 192 bytes have room for: whoever counts more goes round in circles."""

WINDOW, WINDOW_END = 0xE0000000, 0xFE000000
"""Where base addresses are given out that no firmware has: QEMU 7.2 has no memory there on any PC (hw/i386/pc_piix,
pc_q35), and its firmware begins at the other end.
"""

MOST = 64


class Functions(Struct):
    """The machine's functions. window: of the base addresses that are given out here, the next."""

    count: u64
    window: u64
    list = array(u64, MOST)


functions = place(Functions)


def begin() -> bool:
    """List what there is; whether there is PCI at all."""
    out32(ADDRESS_PORT, ENABLE)
    if in32(ADDRESS_PORT) != ENABLE:
        return False
    functions.window = WINDOW
    list_bus(0)
    return True


def list_bus(bus: u64) -> None:
    """List the functions of a bus, and of those behind its bridges."""
    for device in range(DEVICES):
        first = bus << 16 | device << 11
        if read(first, IDENTITY) & NOBODY == NOBODY:
            continue
        several = read(first, HEADER) >> 16 & SEVERAL
        for i in range(FUNCTIONS if several else 1):
            if read(first | i << 8, IDENTITY) & NOBODY != NOBODY:
                add(first | i << 8, bus)


def add(function: u64, bus: u64) -> None:
    """One more. It is silent until somebody drives it: a line that it shares would stay as it is otherwise."""
    set_command(function, SILENT, 0)
    if functions.count < MOST:
        functions.list[functions.count] = function
        functions.count += 1
    if read(function, HEADER) >> 16 & 0x7F == BRIDGE:
        behind = read(function, BUSES) >> 8 & 255
        if behind > bus:  # else no firmware has given it a number
            set_command(function, MEMORY | MASTER, 0)
            list_bus(behind)


def read(function: u64, register: u64) -> u64:
    """A register."""
    out32(ADDRESS_PORT, ENABLE | function | register)
    return in32(DATA_PORT)


def write(function: u64, register: u64, value: u64) -> None:
    """Write a register."""
    out32(ADDRESS_PORT, ENABLE | function | register)
    out32(DATA_PORT, value)


def set_command(function: u64, on: u64, off: u64) -> None:
    """Turn bits of the command on and off. Zeros leave the status in the upper half alone (PCI 6.2.3)."""
    write(function, COMMAND, read(function, COMMAND) & ~off & 0xFFFF | on)


def next_capability(function: u64, before: u64) -> u64:
    """Where the capability behind another one lies; behind 0 the first; 0 for none. PCI 6.7."""
    if before:
        return read(function, before) >> 8 & 0xFC
    if read(function, COMMAND) & HAS_CAPABILITIES == 0:
        return 0
    return read(function, CAPABILITIES) & 0xFC


def base(function: u64, number: u64) -> u64:
    """Where memory of a function begins, given a place where it has none; 0 where that cannot be."""
    register = BASES + 4 * number
    low = read(function, register)
    if low & PORTS:
        return 0
    start = low & ~15
    if low & KIND == WIDE:
        start = start | read(function, register + 4) << 32
    if start == 0:
        start = assign(function, register, low & KIND == WIDE)
    return start


def assign(function: u64, register: u64, wide: bool) -> u64:
    """Give memory of a function a place. PCI 6.2.5.1: ones are written, and the size is read."""
    if function >> 16:  # behind a bridge, that lets nothing through
        return 0
    set_command(function, 0, MEMORY)
    write(function, register, 0xFFFFFFFF)
    size = (0 - (read(function, register) & ~15)) & 0xFFFFFFFF
    start = (functions.window + size - 1) & ~(size - 1)
    if size == 0 or start + size > WINDOW_END:
        start = 0
    else:
        functions.window = start + size
    write(function, register, start)
    if wide:
        write(function, register + 4, 0)
    return start
