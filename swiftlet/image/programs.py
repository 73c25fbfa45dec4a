"""Which function of which program a page of running code is from: by its bytes, among the files of a root.

A guest's programs are known by their bytes alone, wherever they were loaded: code is mapped as it lies in its file.
Only functions that a file names can be told (a stripped library names what it offers to others).
"""

from __future__ import annotations

import bisect
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

PAGE = 4096
MAX_FILE = 512 << 20

_MAGIC = b"\x7fELF\x02\x01"
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_LOAD, _EXECUTABLE = 1, 1
_TABLES = (2, 11)
"""SHT_SYMTAB, SHT_DYNSYM."""

_FUNCTIONS = (2, 10)
"""STT_FUNC, STT_GNU_IFUNC."""


class Program(NamedTuple):
    """A file with code. spans: (offset, address, bytes) of what is executable."""

    path: str
    content: bytes
    spans: tuple[tuple[int, int, int], ...]


class Found(NamedTuple):
    """Where a page is from. offset: of the page in the file."""

    program: Program
    offset: int


def pages(trees: Iterable[str], wanted: set[bytes], digest: Callable[[bytes], bytes]) -> dict[bytes, Found]:
    """Page's digest -> where it is from, for those that some program of these folders has."""
    found: dict[bytes, Found] = {}
    for program in _programs(trees):
        for page, offset in _code(program):
            if (key := digest(page)) in wanted:
                found.setdefault(key, Found(program, offset))
        if len(found) == len(wanted):
            break
    return found


def _programs(trees: Iterable[str]) -> Iterator[Program]:
    for tree in trees:
        for folder, _, names in os.walk(tree):
            for name in sorted(names):
                path = f"{folder}/{name}"
                if not os.path.islink(path) and (program := program_of(path, path.removeprefix(tree))) is not None:
                    yield program


def program_of(path: str, shown: str) -> Program | None:
    """A file, None where it has no code. shown: its path as a guest sees it."""
    try:
        with open(path, "rb") as file:
            head = file.read(len(_MAGIC))
            content = head + file.read(MAX_FILE) if head == _MAGIC else b""
        return Program(shown, content, tuple(_spans(content))) if content else None
    except (OSError, struct.error):
        return None


def _spans(content: bytes) -> Iterator[tuple[int, int, int]]:
    (first,) = struct.unpack_from("<Q", content, 32)
    size, count = struct.unpack_from("<HH", content, 54)
    for number in range(count):
        kind, flags, offset, address, _, length, _, _ = _SEGMENT.unpack_from(content, first + number * size)
        if kind == _LOAD and flags & _EXECUTABLE:
            yield offset, address, length


def _code(program: Program) -> Iterator[tuple[bytes, int]]:
    """Its pages, as they come into memory: whole, the last one with zeros behind."""
    for offset, _, length in program.spans:
        end = min(offset + length, len(program.content))
        for start in range(offset & -PAGE, end, PAGE):
            yield program.content[start : start + PAGE].ljust(PAGE, b"\0"), start


class Functions:
    """The functions that a program names."""

    def __init__(self, program: Program) -> None:
        self._spans = program.spans
        rows: dict[int, tuple[int, str]] = {}
        try:
            for address, size, name in _symbols(program.content):
                rows.setdefault(address, (size, name))
        except (struct.error, ValueError):
            rows = {}  # a damaged table names nothing
        self._starts = sorted(rows)
        self._rows = rows

    def name(self, offset: int) -> str:
        """The function at an offset in the file, "" where none is named."""
        for start, address, length in self._spans:
            if start <= offset < start + length:
                return self._at(offset - start + address)
        return ""

    def _at(self, address: int) -> str:
        place = bisect.bisect_right(self._starts, address) - 1
        if place < 0:
            return ""
        start = self._starts[place]
        size, name = self._rows[start]
        return name if address < start + size else ""


def _symbols(content: bytes) -> Iterator[tuple[int, int, str]]:
    (first,) = struct.unpack_from("<Q", content, 40)
    size, count = struct.unpack_from("<HH", content, 58)
    sections = [_SECTION.unpack_from(content, first + number * size) for number in range(count)]
    for _, kind, _, _, offset, length, link, *_ in sections:
        if kind not in _TABLES or link >= len(sections):
            continue
        names, names_length = sections[link][4], sections[link][5]
        table = content[offset : offset + length]
        for name, info, _, _, value, bytes_ in _SYMBOL.iter_unpack(table[: len(table) // _SYMBOL.size * _SYMBOL.size]):
            if info & 15 in _FUNCTIONS and value and name < names_length:
                start = names + name
                yield value, bytes_, content[start : content.index(b"\0", start)].decode(errors="replace")
