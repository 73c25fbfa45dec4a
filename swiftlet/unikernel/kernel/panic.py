"""The end of the machine: what happened, the registers, and which functions led there."""

from __future__ import annotations

from swiftlet.unikernel.kernel import console, power
from swiftlet.unikernel.kernel.frame import Frame
from swiftlet.unikernel.metal.words import (
    Struct,
    many,
    mask_interrupts,
    page_fault_address,
    symbol,
    text,
    u32,
    u64,
)

DEEPEST = 24
"""Functions that are named at most."""

FAILED = 70
"""What the machine ends with: EX_SOFTWARE of sysexits."""


class Directory(Struct):
    """What the linker says of the image's functions: so many of them, entries of two numbers behind it."""

    count: u32
    reserved: u32


class Entry(Struct):
    """A function: where it begins, and its name's distance from the directory."""

    start: u32
    name: u32


def fault(frame: Frame) -> None:
    """A fault that no task is to blame for."""
    mask_interrupts()
    console.say(text("\nswiftlet: panic: fault "))
    console.say_number(frame.vector)
    console.say(text(", code "))
    console.say_hex(frame.code)
    console.say(text(", address "))
    console.say_hex(page_fault_address())
    register(text("\nrip "), frame.rip)
    register(text(" rsp "), frame.rsp)
    register(text(" flags "), frame.flags)
    register(text("\nrax "), frame.rax)
    register(text(" rbx "), frame.rbx)
    register(text(" rcx "), frame.rcx)
    register(text(" rdx "), frame.rdx)
    register(text("\nrsi "), frame.rsi)
    register(text(" rdi "), frame.rdi)
    register(text(" rbp "), frame.rbp)
    register(text(" r8 "), frame.r8)
    register(text("\nr9 "), frame.r9)
    register(text(" r10 "), frame.r10)
    register(text(" r11 "), frame.r11)
    register(text(" r12 "), frame.r12)
    register(text("\nr13 "), frame.r13)
    register(text(" r14 "), frame.r14)
    register(text(" r15 "), frame.r15)
    console.line()
    trace(frame.rip, frame.rbp)
    power.off(FAILED)


def register(name: u64, value: u64) -> None:
    """A register and what is in it."""
    console.say(name)
    console.say_hex(value)


def trace(at: u64, base: u64) -> None:
    """The functions that called one another, by their frames."""
    name(at)
    limit = symbol("image_text")
    frame = base
    for _ in range(DEEPEST):
        if frame < limit or frame & 7:
            break
        words = many(u64, frame)
        if words[1] == 0:
            break
        name(words[1])
        if words[0] <= frame:
            break
        frame = words[0]


def name(at: u64) -> None:
    """A function by an address in it."""
    console.say(text("  "))
    console.say_hex(at)
    found = symbol("function_directory")
    directory = many(u32, found)
    entries = many(Entry, found + 8)
    best = 0
    for i in range(directory[0]):
        if entries[i].start <= at:
            best = i + 1
    if best and at < symbol("image_text_end"):
        console.put(32)
        console.say(found + entries[best - 1].name)
        console.say(text("+"))
        console.say_hex(at - entries[best - 1].start)
    console.line()
