"""What is said between the host's launcher and this machine, over the second serial port (docs/vms.md has the words).

An order is a letter, a digit that says how many fields there are, and the fields, each ended by a zero. The reports are
lines. Where nobody is at the other end, the loader's command line says what there is to know.
"""

from __future__ import annotations

from swiftlet.unikernel.kernel import net, options
from swiftlet.unikernel.metal.words import Struct, address, array, in8, many, out8, place, text, u8, u64

PORT = 0x2F8
DATA, INTERRUPTS, STATUS = PORT, PORT + 1, PORT + 5
HAS_DATA, EMPTY, NOBODY = 1, 0x20, 0xFF

LONGEST = 256
FIELDS = 5

NETWORK, KILL, BEGIN = 110, 107, 98
"""`n`: address and card; `k`: a signal; `b`: there is no more to wait for."""


class Orders(Struct):
    """The order that is being read: its letter, fields that are missing, and the bytes of those that have come."""

    is_there: u64
    letter: u64
    digit: u64
    missing: u64
    used: u64
    begun: u64
    killed: u64
    bytes = array(u8, LONGEST)


orders = place(Orders)


def begin(line: u64) -> None:
    """Read what the command line says, and what the host tells before it says `b`.

    The port's queue stays off: turning it on would throw away what has come.
    """
    read_line(line)
    if line == 0 or options.value(line, text("orders=")) == 0 or in8(STATUS) == NOBODY:
        return
    orders.is_there = 1
    while orders.begun == 0:
        poll()
    out8(INTERRUPTS, 1)


def poll() -> None:
    """Take what has come."""
    while orders.is_there and in8(STATUS) & HAS_DATA:
        take(in8(DATA))


def is_waiting() -> bool:
    """Whether something has come."""
    return orders.is_there != 0 and in8(STATUS) & HAS_DATA != 0


def take(byte: u64) -> None:
    """One more byte of an order."""
    if orders.letter == 0:
        orders.letter = byte
        orders.digit = 1
        orders.used = 0
    elif orders.digit:
        orders.digit = 0
        orders.missing = byte - 48
    else:
        if orders.used < LONGEST:
            orders.bytes[orders.used] = byte
            orders.used += 1
        if byte == 0:
            orders.missing -= 1
    if orders.letter and orders.digit == 0 and orders.missing == 0:
        follow(orders.letter)
        orders.letter = 0


def follow(letter: u64) -> None:
    """Do what an order says."""
    if letter == BEGIN:
        orders.begun = 1
    elif letter == KILL:
        orders.killed = number(field(0))
    elif letter == NETWORK:
        net.network.hardware = hardware(field(1))
        net.network.address = address_of(field(2))
        net.network.mask = address_of(field(3))
        net.network.gateway = address_of(field(4))


def field(index: u64) -> u64:
    """Where a field of the order begins."""
    skipped = 0
    i = 0
    while skipped < index and i < orders.used:
        if orders.bytes[i] == 0:
            skipped += 1
        i += 1
    return address(orders.bytes) + i


def read_line(line: u64) -> None:
    """What the command line says: `address=10.0.0.2`."""
    if line:
        found = options.value(line, text("address="))
        if found:
            net.network.address = address_of(found)


def number(place_: u64) -> u64:
    """A number in decimal."""
    letters = many(u8, place_)
    result = 0
    i = 0
    while letters[i] >= 48 and letters[i] <= 57:
        result = result * 10 + (letters[i] - 48)
        i += 1
    return result


def address_of(place_: u64) -> u64:
    """An IPv4 address in the host's order; 0 where it is none."""
    letters = many(u8, place_)
    result = 0
    part = 0
    dots = 0
    i = 0
    while letters[i] == 46 or (letters[i] >= 48 and letters[i] <= 57):
        if letters[i] == 46:
            result = result << 8 | part
            part = 0
            dots += 1
        else:
            part = part * 10 + (letters[i] - 48)
        i += 1
    return result << 8 | part if dots == 3 else 0


def hardware(place_: u64) -> u64:
    """An Ethernet address, `52:54:00:12:34:56`, its first byte lowest; 0 where it is none."""
    letters = many(u8, place_)
    result = 0
    for i in range(6):
        first = digit(letters[3 * i])
        second = digit(letters[3 * i + 1]) if first < 16 else 16
        if first > 15 or second > 15:
            return 0
        result = result | (first << 4 | second) << (8 * i)
    return result


def digit(letter: u64) -> u64:
    """The value of a hexadecimal digit; 16 where it is none."""
    if letter >= 48 and letter <= 57:
        return letter - 48
    small = letter | 32
    return small - 87 if small >= 97 and small <= 102 else 16


def report(words: u64) -> None:
    """Tell the host something."""
    if orders.is_there:
        letters = many(u8, words)
        i = 0
        while letters[i]:
            put(letters[i])
            i += 1


def report_number(value_: u64) -> None:
    """Tell the host a number below 1,000, and end the line."""
    if orders.is_there:
        if value_ >= 100:
            put(48 + value_ // 100 % 10)
        if value_ >= 10:
            put(48 + value_ // 10 % 10)
        put(48 + value_ % 10)
        put(10)


def put(byte: u64) -> None:
    """Write a byte."""
    while in8(STATUS) & EMPTY == 0:
        pass
    out8(DATA, byte)
