"""The console: the first serial port, a 16550 at the PC's usual place."""

from __future__ import annotations

from swiftlet.unikernel.metal.words import in8, many, out8, text, u8, u64

PORT = 0x3F8
LINE_STATUS = PORT + 5
EMPTY = 0x20


def put(byte: u64) -> None:
    """Write a byte."""
    while in8(LINE_STATUS) & EMPTY == 0:
        pass
    out8(PORT, byte)


def say(words: u64) -> None:
    """Write a text that ends with a zero."""
    letters = many(u8, words)
    i = 0
    while letters[i]:
        put(letters[i])
        i += 1


def say_number(number: u64) -> None:
    """Write a number in decimal."""
    if number >= 10:
        say_number(number // 10)
    put(48 + number % 10)


def say_hex(number: u64) -> None:
    """Write a number in hexadecimal."""
    say(text("0x"))
    shift = 60
    while shift > 0 and number >> shift == 0:
        shift -= 4
    while True:
        digit = number >> shift & 15
        put(digit + (48 if digit < 10 else 87))
        if shift == 0:
            break
        shift -= 4


def say_address(address: u64) -> None:
    """Write an IPv4 address, which is a number in the host's order."""
    for i in range(4):
        if i:
            put(46)
        say_number(address >> (24 - 8 * i) & 255)


def line() -> None:
    """End a line."""
    put(10)


def fact(words: u64, number: u64) -> None:
    """Write a text and a number after it, on a line."""
    say(words)
    say_number(number)
    line()
