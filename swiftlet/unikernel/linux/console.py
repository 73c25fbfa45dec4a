"""What is said on the standard output and the standard error: a line at a time."""

from __future__ import annotations

from swiftlet.unikernel.linux import system
from swiftlet.unikernel.metal.words import Struct, address, array, many, place, u8, u64

OUTPUT, ERROR = 1, 2
_LONGEST = 512


class Line(Struct):
    """The line that is being put together."""

    used: u64
    bytes = array(u8, _LONGEST)


_line = place(Line)


def put(byte: u64) -> None:
    """One more byte; what does not fit is left out."""
    if _line.used < _LONGEST:
        _line.bytes[_line.used] = byte
        _line.used += 1


def say(words: u64) -> None:
    """A text that ends with a zero."""
    letters = many(u8, words)
    i = 0
    while letters[i]:
        put(letters[i])
        i += 1


def say_number(number: u64) -> None:
    """A number in decimal."""
    if number >= 10:
        say_number(number // 10)
    put(48 + number % 10)


def say_hex(number: u64) -> None:
    """A number in hexadecimal, all its digits."""
    for shift in range(60, -4, -4):
        digit = number >> shift & 15
        put(digit + (48 if digit < 10 else 87))


def say_address(host: u64) -> None:
    """An IPv4 address in the host's order."""
    for i in range(4):
        if i:
            put(46)
        say_number(host >> (24 - 8 * i) & 255)


def end(file: u64) -> None:
    """Write the line."""
    put(10)
    system.write(file, address(_line.bytes), _line.used)
    _line.used = 0
