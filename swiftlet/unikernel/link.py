"""The linker: a few static objects become an image whose code is not writable and whose data is not executable."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from swiftlet.model.error import KernelError
from swiftlet.unikernel.elf import ALLOC, EXECUTE, FUNCTION, NOBITS, WRITE, Named, Object, Section, Segment, executable

BASE = 0x100000
"""Where an image begins: at 1 MiB, behind what a PC's firmware keeps for itself."""

PAGE = 0x1000

_NOTE = ".note.pvh"

_TEXT, _CONSTANT, _DATA, _ZERO = range(4)
_NAMES = ("text", "rodata", "data", "bss")
_FLAGS = (5, 4, 6, 6)

_64, _PC32, _PLT32, _32, _32S, _16, _PC64 = 1, 2, 4, 10, 11, 12, 24
"""Relocations of the x86-64 ABI, table 4.9: S + A, or S + A - P."""

_FORMS = {
    _64: ("<Q", False, 0, 1 << 64),
    _PC64: ("<q", True, -(1 << 63), 1 << 63),
    _PC32: ("<i", True, -(1 << 31), 1 << 31),
    _PLT32: ("<i", True, -(1 << 31), 1 << 31),
    _32: ("<I", False, 0, 1 << 32),
    _32S: ("<i", False, -(1 << 31), 1 << 31),
    _16: ("<H", False, 0, 1 << 16),
}


class _Placed(NamedTuple):
    object: int
    number: int
    section: Section
    address: int


class Image(NamedTuple):
    """A linked image. symbols: its functions, by address."""

    data: bytes
    symbols: tuple[Named, ...]


def linked(objects: Sequence[Object], entry: str, base: int = BASE, further: Sequence[tuple[int, ...]] = ()) -> Image:
    """Link objects; sections lie in their order. further: program headers (`elf.executable`).

    Raises KernelError for what is undefined or out of reach.
    """
    placed, bounds = _laid_out(objects, base)
    where = {(each.object, each.number): each.address for each in placed}
    known = _globals(objects, where) | bounds
    missing = sorted({name for each in objects for name in each.undefined} - set(known))
    if missing:
        raise KernelError(f"nothing defines {', '.join(missing)}")
    segments = [_segment(number, placed, bounds, objects, where, known) for number in range(4)]
    note = next(((each.address, each.section.size) for each in placed if each.section.name == _NOTE), None)
    symbols = _functions(objects, where)
    shown = [*symbols, *(Named(name, 0, value, 0) for name, value in bounds.items())]
    used = [each for each in segments if each.size]
    return Image(executable(used, known[entry], note, shown, further), tuple(symbols))


def _class_of(section: Section) -> int:
    if section.flags & EXECUTE:
        return _TEXT
    if section.type == NOBITS:
        return _ZERO
    return _DATA if section.flags & WRITE else _CONSTANT


def _laid_out(objects: Sequence[Object], base: int) -> tuple[list[_Placed], dict[str, int]]:
    """Every section's address, and symbols for where each kind begins and ends, on pages of its own."""
    placed: list[_Placed] = []
    bounds: dict[str, int] = {}
    address = base
    for wanted in range(4):
        address = -(-address // PAGE) * PAGE
        bounds[f"image_{_NAMES[wanted]}"] = address
        for number, each in enumerate(objects):
            for index, section in enumerate(each.sections):
                if section.flags & ALLOC and section.size and _class_of(section) == wanted:
                    address = -(-address // section.alignment) * section.alignment
                    placed.append(_Placed(number, index, section, address))
                    address += section.size
        bounds[f"image_{_NAMES[wanted]}_end"] = address
    return placed, bounds


def _globals(objects: Sequence[Object], where: dict[tuple[int, int], int]) -> dict[str, int]:
    found: dict[str, int] = {}
    for number, each in enumerate(objects):
        for symbol in each.symbols:
            if symbol.section and not symbol.is_local and (number, symbol.section) in where:
                if symbol.name in found:
                    raise KernelError(f"{each.name} defines {symbol.name} once more")
                found[symbol.name] = where[number, symbol.section] + symbol.value
    return found


def _functions(objects: Sequence[Object], where: dict[tuple[int, int], int]) -> list[Named]:
    found = [
        Named(symbol.name, FUNCTION, where[number, symbol.section] + symbol.value, symbol.size)
        for number, each in enumerate(objects)
        for symbol in each.symbols
        if symbol.name and symbol.type == FUNCTION and (number, symbol.section) in where
    ]
    return sorted(found, key=lambda each: each.address)


def _segment(
    wanted: int,
    placed: list[_Placed],
    bounds: dict[str, int],
    objects: Sequence[Object],
    where: dict[tuple[int, int], int],
    known: dict[str, int],
) -> Segment:
    start, end = bounds[f"image_{_NAMES[wanted]}"], bounds[f"image_{_NAMES[wanted]}_end"]
    data = bytearray(0 if wanted == _ZERO else end - start)
    for each in placed:
        if _class_of(each.section) == wanted and wanted != _ZERO:
            begin = each.address - start
            data[begin : begin + each.section.size] = each.section.data
            _relocate(data, start, each, objects[each.object], where, known)
    return Segment(_FLAGS[wanted], start, bytes(data), end - start)


def _relocate(
    data: bytearray,
    start: int,
    placed: _Placed,
    owner: Object,
    where: dict[tuple[int, int], int],
    known: dict[str, int],
) -> None:
    for each in placed.section.relocations:
        symbol = owner.symbols[each.symbol]
        home = where.get((placed.object, symbol.section))
        value = home + symbol.value if home is not None and symbol.section else known[symbol.name]
        if each.type not in _FORMS:
            raise KernelError(f"{owner.name}: a relocation of type {each.type} for {symbol.name}")
        form, relative, least, beyond = _FORMS[each.type]
        place = placed.address + each.offset
        result = value + each.addend - (place if relative else 0)
        if not least <= result < beyond:
            raise KernelError(f"{owner.name}: {symbol.name or placed.section.name} is out of reach")
        struct.pack_into(form, data, place - start, result)
