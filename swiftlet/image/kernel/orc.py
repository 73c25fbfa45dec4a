"""Who called whom in a stopped kernel, by the tables that it has for its own stack traces (CONFIG_UNWINDER_ORC).

As arch/x86/kernel/unwind_orc.c does it, from outside. Format: Documentation/x86/orc-unwinder.rst and
arch/x86/include/asm/orc_types.h of Linux 5.x to 6.2; later ones are laid out otherwise and not read.
"""

from __future__ import annotations

import bisect
import re
import struct
from array import array
from collections.abc import Callable

from swiftlet.image.kernel.symbols import Image, Symbols

DEEPEST = 64
"""Frames of one stack: a damaged one may lead in a circle."""

_ENTRY = struct.Struct("<hhH")
_UNDEFINED, _PREVIOUS_SP, _BP, _SP, _BP_INDIRECT, _SP_INDIRECT = 0, 1, 4, 5, 8, 9
_CALL, _REGISTERS, _PARTIAL = 0, 1, 2
_BP_AT, _IP_AT = 32, 128
"""Places of bp and ip in struct pt_regs; cs, flags and sp follow ip (arch/x86/include/asm/ptrace.h)."""

Read = Callable[[int], int | None]
"""The word at an address of the guest's, None where nothing is mapped."""


class Unwinder:
    """The tables of one kernel."""

    def __init__(self, starts: list[int], entries: bytes) -> None:
        """starts: from which addresses on each of the entries (6 bytes) holds, sorted."""
        self._starts = starts
        self._entries = entries

    def frames(self, ip: int, sp: int, bp: int, read: Read) -> list[int]:
        """Where each function of a stack is being executed, the innermost first; it is always there."""
        found = [ip]
        called = False
        while len(found) < DEEPEST:
            place = bisect.bisect_right(self._starts, ip - called) - 1
            if place < 0:
                break
            sp_offset, bp_offset, bits = _ENTRY.unpack_from(self._entries, place * _ENTRY.size)
            top = self._top(bits & 15, sp, bp, sp_offset, read)
            if bits >> 10 & 1 or top is None:
                break
            kind = bits >> 8 & 3
            next_ip, next_sp = _caller(kind, top, read)
            if not next_ip or next_sp is None:
                break
            bp = _next_bp(kind, bits >> 4 & 15, bp_offset, top, bp, read)
            ip, sp, called = next_ip, next_sp, kind == _CALL
            found.append(ip)
        return found

    def _top(self, register: int, sp: int, bp: int, offset: int, read: Read) -> int | None:
        """Where the frame ends: the stack pointer before the call."""
        if register == _SP:
            return sp + offset
        if register == _BP:
            return bp + offset
        if register == _BP_INDIRECT:
            return read(bp + offset)
        if register == _SP_INDIRECT:
            kept = read(sp)
            return None if kept is None else kept + offset
        return None


def _caller(kind: int, top: int, read: Read) -> tuple[int | None, int | None]:
    if kind == _CALL:
        return read(top - 8), top
    if kind not in (_REGISTERS, _PARTIAL):
        return None, None
    place = top + _IP_AT if kind == _REGISTERS else top
    code = read(place + 8)
    if code is None or code & 3:
        return None, None  # a program was interrupted: the kernel's stack ends here
    return read(place), read(place + 24)


def _next_bp(kind: int, register: int, offset: int, top: int, bp: int, read: Read) -> int:
    kept: int | None = bp
    if register == _PREVIOUS_SP:
        kept = read(top + offset)
    elif register == _BP:
        kept = read(bp + offset)
    elif register == _UNDEFINED and kind == _REGISTERS:
        kept = read(top + _BP_AT)
    return kept or 0


def unwinder_of(version: str, symbols: Symbols, image: Image) -> Unwinder | None:
    """The tables of a kernel; None where it has none, or in a format that is not known here."""
    number = re.match(r"(\d+)\.(\d+)", version)
    if number is None or not (5, 0) <= (int(number[1]), int(number[2])) < (6, 3):
        return None
    ends = [symbols.address(f"__{end}_orc_unwind{part}") for part in ("_ip", "") for end in ("start", "stop")]
    if None in ends:
        return None
    first, last, entries, entries_end = (end or 0 for end in ends)
    offsets = array("i", image.bytes(first, last - first))
    table = image.bytes(entries, entries_end - entries)
    starts = [first + 4 * place + offset for place, offset in enumerate(offsets)]
    return Unwinder(starts, table) if starts and len(table) >= len(starts) * _ENTRY.size else None
