"""The C library's functions on memory, which LLVM's code calls of itself. Eight bytes at a time, and the rest."""

from __future__ import annotations

from swiftlet.unikernel.metal.words import bare, export, i64, many, signed, u8, u64


@export
@bare
def memcpy(target: u64, source: u64, count: u64) -> u64:
    words = count >> 3
    to = many(u64, target)
    of = many(u64, source)
    for i in range(words):
        to[i] = of[i]
    to_bytes = many(u8, target)
    of_bytes = many(u8, source)
    for i in range(words << 3, count):
        to_bytes[i] = of_bytes[i]
    return target


@export
@bare
def memmove(target: u64, source: u64, count: u64) -> u64:
    if target - source >= count:  # below the source, or behind its end
        return memcpy(target, source, count)
    to = many(u8, target)
    of = many(u8, source)
    while count:
        count -= 1
        to[count] = of[count]
    return target


@export
@bare
def memset(target: u64, byte: u64, count: u64) -> u64:
    words = count >> 3
    to = many(u64, target)
    for i in range(words):
        to[i] = (byte & 255) * 0x0101010101010101
    to_bytes = many(u8, target)
    for i in range(words << 3, count):
        to_bytes[i] = byte
    return target


@export
@bare
def memcmp(left: u64, right: u64, count: u64) -> i64:
    a = many(u8, left)
    b = many(u8, right)
    for i in range(count):
        if a[i] != b[i]:
            return signed(a[i] - b[i])
    return 0
