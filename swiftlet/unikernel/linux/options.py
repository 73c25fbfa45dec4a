"""What the command line says: `[--threads|--processes] [--port NUMBER] [--address ADDRESS]`."""

from __future__ import annotations

from swiftlet.unikernel.linux import console, system
from swiftlet.unikernel.metal.words import Struct, i64, many, place, signed, text, u8, u64, unsigned

PORT = 7000

WRONG = 64
"""What the program ends with when it is called wrongly: EX_USAGE of sysexits.h(3head)."""


class Options(Struct):
    """processes: whether a task is a process of its own. address: in the host's order, 0 for all that it has."""

    processes: u64
    port: u64
    address: u64


options = place(Options)


def read(stack: u64) -> None:
    """Read the arguments, which lie behind their number. Ends the program where they are wrong."""
    words = many(u64, stack)
    count = words[0]
    options.port = PORT
    i = 2
    while i <= count:
        word = words[i]
        following = words[i + 1]  # a null pointer behind the last
        if is_(word, text("--threads")):
            options.processes = 0
        elif is_(word, text("--processes")):
            options.processes = 1
        elif is_(word, text("--port")) and following and number(following, 0, 65535) >= 0:
            options.port = unsigned(number(following, 0, 65535))
            i += 1
        elif is_(word, text("--address")) and following and address_of(following) >= 0:
            options.address = unsigned(address_of(following))
            i += 1
        else:
            refuse(word)
        i += 1


def refuse(word: u64) -> None:
    """Say how the program is called, and end it."""
    console.say(text("what is "))
    console.say(word)
    console.say(text("? [--threads|--processes] [--port NUMBER] [--address ADDRESS]"))
    console.end(console.ERROR)
    system.exit_all(WRONG)


def is_(word: u64, other: u64) -> bool:
    """Whether two texts are the same."""
    one = many(u8, word)
    two = many(u8, other)
    i = 0
    while one[i] and one[i] == two[i]:
        i += 1
    return one[i] == two[i]


def number(place_: u64, end: u64, most: u64) -> i64:
    """A number in decimal that ends with the byte `end`; -1 where it is none, or above `most`."""
    letters = many(u8, place_)
    result = 0
    i = 0
    while letters[i] >= 48 and letters[i] <= 57:
        result = result * 10 + (letters[i] - 48)
        i += 1
        if result > most:
            return -1
    if i == 0 or letters[i] != end:
        return -1
    return signed(result)


def address_of(place_: u64) -> i64:
    """An IPv4 address in the host's order; -1 where it is none."""
    letters = many(u8, place_)
    result = 0
    at_ = 0
    for part in range(4):
        found = number(place_ + at_, 46 if part < 3 else 0, 255)
        if found < 0:
            return -1
        result = result << 8 | unsigned(found)
        while letters[at_] >= 48 and letters[at_] <= 57:
            at_ += 1
        at_ += 1
    return signed(result)
