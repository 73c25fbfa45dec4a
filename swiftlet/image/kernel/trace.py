"""Which lines of a kernel's source have run, from QEMU's log of the code that it translated (`-d in_asm`).

Emulation translates what runs and nothing else, so the log is complete at no cost. Addresses become lines by the line
tables of `vmlinux.lines` (`build` with lines), all in one run of addr2line: a link map would tell only which object an
address is in, and options are also asked for within files. Guests must run without KASLR.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from enum import IntEnum
from typing import NamedTuple

from swiftlet.model.error import HostError, KernelError

FIRST, LAST = 0xFFFFFFFF80000000, 0xFFFFFFFFA0000000
"""Where the kernel's image is mapped (Documentation/x86/x86_64/mm.rst); above are modules and the vsyscall page."""

_HIGH = "0xffffffff"

_LOADED = range(16 << 20, 80 << 20)
"""Where the kernel lies in memory (CONFIG_PHYSICAL_START), and runs until it has mapped itself high for good."""

_LOWEST_PROGRAM = 1 << 20
"""Below it are the first instructions of further processors."""


class Place(NamedTuple):
    """A line of the source. file: from the tree's root."""

    file: str
    line: int


class Phase(IntEnum):
    """When a line ran first, and so how much that proves.

    INIT: in code that the kernel gives up after its start; a driver that registers and finds no device gets no further.
    BOOT: in other code, but before there was a process. USE: since then. Code that runs in both is translated but once,
    so a line of BOOT may well be needed, and one of USE is.
    """

    INIT = 0
    BOOT = 1
    USE = 2


class Ran(NamedTuple):
    """A line that has run."""

    place: Place
    phase: Phase


def executed(lines: Iterable[str]) -> dict[int, bool]:
    """The addresses of the kernel's instructions in a log, and whether a process ran before each did.

    At first it runs at its physical addresses too, back and forth (PVH's entry is C code); later these are programs'.
    """
    found: dict[int, bool] = {}
    low: dict[int, bool] = {}
    process = False
    for line in lines:
        digits, colon, _ = line[:20].partition(":")
        if not colon or not digits.startswith("0x"):
            continue
        if digits.startswith(_HIGH) and len(digits) == len(_HIGH) + 8:
            address = int(digits, 16)
            if FIRST <= address < LAST:
                found.setdefault(address, process)
        elif not process:
            address = int(digits, 16)
            if address in _LOADED:
                low[address + FIRST] = False
            else:
                process = bool(found) and address >= _LOWEST_PROGRAM
    return low | found


def executed_in(folder: str) -> dict[int, bool]:
    """The same of all logs in a folder, each of one start of the kernel. Raises OSError."""
    found: dict[int, bool] = {}
    for name in sorted(os.listdir(folder)):
        with open(f"{folder}/{name}", errors="replace") as file:
            for address, process in executed(file).items():
                found[address] = process or found.get(address, False)
    return found


def init_text(system_map: str) -> range:
    """Where the code is that is given up after the kernel's start, by System.map's text. Raises KernelError."""
    ends = dict(re.findall(r"^([0-9a-f]+) \w (_sinittext|_einittext)$", system_map, re.MULTILINE))
    by_name = {name: int(address, 16) for address, name in ends.items()}
    try:
        return range(by_name["_sinittext"], by_name["_einittext"])
    except KeyError:
        raise KernelError("System.map has no _sinittext and _einittext") from None


def lines_of(folder: str, addresses: Mapping[int, bool], tree: str) -> dict[Place, Ran]:
    """The lines that instructions came from: each with all lines into which it was inlined.

    folder: of a kernel that was built with lines. addresses: see `executed`. Raises HostError, KernelError, OSError.
    """
    with open(f"{folder}/System.map") as file:
        start = init_text(file.read())
    found: dict[Place, Ran] = {}
    for address, place in lines_at(folder, addresses, tree):
        phase = Phase.USE if addresses[address] else Phase.INIT if address in start else Phase.BOOT
        if place not in found or found[place].phase < phase:
            found[place] = Ran(place, phase)
    return found


def lines_at(folder: str, addresses: Iterable[int], tree: str) -> Iterator[tuple[int, Place]]:
    """Addresses in their order, each with its line and then those into which that was inlined."""
    vmlinux = f"{folder}/vmlinux.lines"
    text = "".join(f"{address:#x}\n" for address in sorted(addresses))
    try:
        done = subprocess.run(
            ["addr2line", "-a", "-i", "-e", vmlinux], input=text, capture_output=True, text=True, errors="replace"
        )
    except FileNotFoundError:
        raise HostError("no addr2line here to read line tables", "apt-get install binutils") from None
    if done.returncode:
        raise KernelError(f"addr2line cannot read {vmlinux}: {done.stderr.strip() or done.returncode}")
    return read_answers(done.stdout.splitlines(), os.path.realpath(tree))


def read_answers(lines: Iterable[str], tree: str) -> Iterator[tuple[int, Place]]:
    """What `addr2line -a -i` has answered: each address with the lines of the tree it came from, innermost first."""
    address = 0
    for line in lines:
        if line.startswith("0x"):
            address = int(line, 16)
            continue
        path, _, number = line.partition(" (")[0].rpartition(":")
        if path.startswith("/") and number.isdigit() and int(number):
            path = os.path.normpath(path)
            if path.startswith(f"{tree}/"):
                yield address, Place(path[len(tree) + 1 :], int(number))
