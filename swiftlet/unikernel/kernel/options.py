"""What the loader's command line says of how the machine works: words with a value each, in any order."""

from __future__ import annotations

from swiftlet.unikernel.metal.words import Struct, many, place, text, u8, u64


class Options(Struct):
    """serves: the first processor runs no tasks. packed: see `placement`. monitors: wait by `mwait`, offered or not."""

    serves: u64
    packed: u64
    monitors: u64


options = place(Options)


def read(line: u64) -> None:
    """Read the command line; 0 where there is none."""
    options.serves = says(line, text("master=serve"))
    options.packed = says(line, text("placement=packed"))
    options.monitors = says(line, text("idle=mwait"))


def says(line: u64, word: u64) -> u64:
    """Whether a word is said."""
    found = value(line, word)
    letter = many(u8, found)[0] if found else 1
    return 1 if letter == 0 or letter == 32 else 0


def value(line: u64, name: u64) -> u64:
    """Where the value of a word begins; 0 where the word is not said."""
    if line == 0:
        return 0
    letters = many(u8, line)
    wanted = many(u8, name)
    i = 0
    while letters[i]:
        j = 0
        while wanted[j] and letters[i + j] == wanted[j]:
            j += 1
        if wanted[j] == 0 and (i == 0 or letters[i - 1] == 32):
            return line + i + j
        i += 1
    return 0
