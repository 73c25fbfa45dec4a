"""ELF objects as they are read and images as they are written: System V ABI, x86-64 supplement. No linking here."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from swiftlet.model.error import BadElfError

PROGBITS, SYMTAB, STRTAB, RELA, NOBITS = 1, 2, 3, 4, 8
"""sh_type."""

WRITE, ALLOC, EXECUTE = 1, 2, 4
"""sh_flags."""

FUNCTION = 2
"""The type of a symbol that is a function (STT_FUNC)."""

PLAIN_STACK = (0x6474E551, 6, 0, 0, 0, 0, 0, 16)
"""A program header, PT_GNU_STACK: Linux makes a stack that is not executable only for an image that has it."""

_LOCAL, _GLOBAL = 0, 1
_UNDEFINED, _ABSOLUTE = 0, 0xFFF1

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQq")
_PROGRAM = struct.Struct("<IIQQQQQQ")
_IDENTITY = b"\x7fELF\2\1\1".ljust(16, b"\0")
_EXECUTABLE, _X86_64 = 2, 62


class Relocation(NamedTuple):
    """At `offset` of a section: `type` of the ABI's, of a symbol, plus `addend`."""

    offset: int
    type: int
    symbol: int
    addend: int


class Section(NamedTuple):
    """A section of an object."""

    name: str
    type: int
    flags: int
    size: int
    alignment: int
    data: bytes
    relocations: tuple[Relocation, ...]


class Symbol(NamedTuple):
    """A symbol of an object. section: its number, 0 where it is defined elsewhere."""

    name: str
    is_local: bool
    type: int
    section: int
    value: int
    size: int


class Object(NamedTuple):
    """A relocatable object."""

    name: str
    sections: tuple[Section, ...]
    symbols: tuple[Symbol, ...]

    @property
    def undefined(self) -> set[str]:
        """What it needs of others."""
        return {each.name for each in self.symbols if each.section == _UNDEFINED and each.name}

    @property
    def defined(self) -> set[str]:
        """What others may need of it."""
        return {each.name for each in self.symbols if each.section != _UNDEFINED and not each.is_local}


class Segment(NamedTuple):
    """A part of an image that is loaded. flags: 1 executable, 2 writable, 4 readable. size: in memory."""

    flags: int
    address: int
    data: bytes
    size: int


class Named(NamedTuple):
    """A symbol of an image."""

    name: str
    type: int
    address: int
    size: int


def parse(data: bytes, name: str) -> Object:
    """Read an object. Raises BadElfError."""
    try:
        return _parse(data, name)
    except (struct.error, IndexError, ValueError, UnicodeDecodeError):
        raise BadElfError(f"{name} is no object that can be linked") from None


def _parse(data: bytes, name: str) -> Object:
    header = _HEADER.unpack_from(data)
    if header[0][:7] != _IDENTITY[:7] or header[2] != _X86_64:
        raise BadElfError(f"{name} is no object for x86-64")
    table, count, names = header[6], header[12], header[13]
    raw = [_SECTION.unpack_from(data, table + _SECTION.size * number) for number in range(count)]

    def text(section: int, offset: int) -> str:
        begin = raw[section][4] + offset
        return data[begin : data.index(b"\0", begin)].decode()

    relocations: dict[int, tuple[Relocation, ...]] = {}
    symbols: list[Symbol] = []
    for each in raw:
        if each[1] == RELA:
            relocations[each[7]] = _relocations(data[each[4] : each[4] + each[5]])
        if each[1] == SYMTAB:
            for entry in _SYMBOL.iter_unpack(data[each[4] : each[4] + each[5]]):
                label, info, _, section, value, size = entry
                symbols.append(Symbol(text(each[6], label), info >> 4 == _LOCAL, info & 15, section, value, size))
    sections = tuple(
        Section(
            text(names, each[0]),
            each[1],
            each[2],
            each[5],
            max(1, each[8]),
            b"" if each[1] == NOBITS else data[each[4] : each[4] + each[5]],
            relocations.get(number, ()),
        )
        for number, each in enumerate(raw)
    )
    return Object(name, sections, tuple(symbols))


def _relocations(data: bytes) -> tuple[Relocation, ...]:
    return tuple(
        Relocation(offset, info & 0xFFFFFFFF, info >> 32, addend)
        for offset, info, addend in _RELOCATION.iter_unpack(data)
    )


def executable(
    segments: list[Segment],
    entry: int,
    note: tuple[int, int] | None,
    symbols: list[Named],
    further: Sequence[tuple[int, ...]] = (),
) -> bytes:
    """An image for a loader. note: address and size of one that says where to enter it. symbols: for debuggers.

    further: program headers of what lies nowhere in the image.
    """
    page = 0x1000
    count = len(segments) + (note is not None) + len(further)
    image = bytearray(_HEADER.size + count * _PROGRAM.size)
    headers, offsets = [*further], []
    for each in segments:
        image += bytes(-len(image) % page if each.data else 0)
        offset = len(image) + (each.address % page if each.data else 0)
        image += bytes(offset - len(image)) + each.data
        offsets.append(offset)
        headers.append((1, each.flags, offset, each.address, each.address, len(each.data), each.size, page))
        if note is not None and each.address <= note[0] < each.address + len(each.data):
            place = offset + note[0] - each.address
            headers.append((4, 4, place, note[0], note[0], note[1], note[1], 4))
    for number, header in enumerate(headers):
        _PROGRAM.pack_into(image, _HEADER.size + number * _PROGRAM.size, *header)
    sections = _append_symbols(image, segments, offsets, symbols)
    table = len(image)
    image += b"".join(_SECTION.pack(*each) for each in sections)
    _HEADER.pack_into(
        image, 0, _IDENTITY, _EXECUTABLE, _X86_64, 1, entry, _HEADER.size, table, 0, _HEADER.size,
        _PROGRAM.size, len(headers), _SECTION.size, len(sections), len(sections) - 1,
    )  # fmt: skip
    return bytes(image)


def _append_symbols(
    image: bytearray, segments: list[Segment], offsets: list[int], symbols: list[Named]
) -> list[tuple[int, ...]]:
    """Symbols, their names and the sections' names at the image's end, which nobody loads. Returns the sections."""
    names = bytearray(b"\0")
    entries = bytearray(_SYMBOL.size)
    for each in symbols:
        home = next((n for n, one in enumerate(segments) if one.address <= each.address <= one.address + one.size), -1)
        section = home + 1 if home >= 0 else _ABSOLUTE
        entries += _SYMBOL.pack(len(names), _GLOBAL << 4 | each.type, 0, section, each.address, each.size)
        names += each.name.encode() + b"\0"
    titles = bytearray(b"\0")

    def title(name: str) -> int:
        titles.extend(name.encode() + b"\0")
        return len(titles) - len(name) - 1

    found: list[tuple[int, ...]] = [(0,) * 10]
    for number, (segment, offset) in enumerate(zip(segments, offsets, strict=True)):
        flags = ALLOC | (EXECUTE if segment.flags & 1 else 0) | (WRITE if segment.flags & 2 else 0)
        kind = PROGBITS if segment.data else NOBITS
        place = title((".text", ".rodata", ".data", ".bss")[min(number, 3)])
        found.append((place, kind, flags, segment.address, offset, segment.size, 0, 0, 16, 0))
    for name, kind, data, link, size in (
        (".symtab", SYMTAB, entries, len(segments) + 2, _SYMBOL.size),
        (".strtab", STRTAB, names, 0, 0),
    ):
        image += bytes(-len(image) % 8)
        found.append((title(name), kind, 0, 0, len(image), len(data), link, 1 if kind == SYMTAB else 0, 8, size))
        image += data
    own = title(".shstrtab")
    found.append((own, STRTAB, 0, 0, len(image), len(titles), 0, 0, 1, 0))
    image += titles + bytes(-(len(image) + len(titles)) % 8)
    return found
