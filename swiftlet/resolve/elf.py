"""What an ELF object needs and offers, read as the dynamic loader reads it: program headers, never sections.

Reads a file that may come from an enemy: every offset and count is checked against the file and a limit
before it is followed, no list of the file is walked without an end, nothing is read twice. Written with
`struct` rather than pyelftools, which reads version tables by section only and follows what it finds; the
tests hold the two against one another. Which files the needs lead to is `walk`'s business.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from typing import Any

import msgspec

from swiftlet.model.error import BadElfError

MAGIC = b"\x7fELF"

MAX_SEGMENTS = 512
MAX_DYNAMIC = 1 << 20
"""Bytes of PT_DYNAMIC; the largest seen has 4 KiB."""
MAX_VERSIONS = 20_000
MAX_TEXT = 4096
MAX_NOTES = 1 << 20
MAX_READ = 64 << 20
"""Bytes that reading one object may take in all; without it tables that overlap could be read for hours."""

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_TAG = struct.Struct("<qQ")
_NEED = struct.Struct("<HHIII")
_NEED_AUX = struct.Struct("<IHHII")
_DEFINITION = struct.Struct("<HHHHIII")
_DEFINITION_AUX = struct.Struct("<II")
_NOTE = struct.Struct("<III")

_X86_64 = 62
_EXECUTABLE, _SHARED = 2, 3
_LOAD, _DYNAMIC, _INTERPRETER, _NOTES = 1, 2, 3, 4
_NEEDED, _STRTAB, _STRSZ, _SONAME, _RPATH, _RUNPATH = 1, 5, 10, 14, 15, 29
_FLAGS_1, _VERDEF, _VERDEFNUM, _VERNEED, _VERNEEDNUM = 0x6FFFFFFB, 0x6FFFFFFC, 0x6FFFFFFD, 0x6FFFFFFE, 0x6FFFFFFF
_WEAK, _BASE = 2, 1
_PIE = 0x08000000
_DLOPEN_TYPE = 0x407C0C0A
"""systemd's ELF_NOTE_DLOPEN specification: owner FDO, a JSON array."""


class Dlopen(msgspec.Struct, frozen=True, omit_defaults=True):
    """One entry of .note.dlopen. sonames: alternatives, best first. priority: required, recommended, suggested."""

    sonames: tuple[str, ...]
    priority: str = "recommended"
    feature: str = ""


class Facts(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a 64-bit x86 object says of itself.

    runpath: DT_RUNPATH, or DT_RPATH where that is missing, split at colons, $ORIGIN not replaced.
    versions: soname -> symbol versions that this object must find there (weak ones left out).
    defines: symbol versions that this object offers. program: it can be executed (as opposed to a library).
    """

    needed: tuple[str, ...] = ()
    soname: str = ""
    runpath: tuple[str, ...] = ()
    interpreter: str = ""
    versions: dict[str, tuple[str, ...]] = {}
    defines: tuple[str, ...] = ()
    dlopen: tuple[Dlopen, ...] = ()
    program: bool = False


def read_facts(descriptor: int, name: str, *, offset: int = 0, size: int | None = None) -> Facts:
    """The facts of the object at `offset` in a file; `name` is what errors call it.

    Raises BadElfError for a file that is not ELF, not 64-bit x86, of a kind that cannot be loaded, or damaged.
    """
    end = os.fstat(descriptor).st_size - offset if size is None else size
    image = Image(descriptor, offset, max(end, 0), name)
    try:
        return Reader(image).facts()
    except (struct.error, ValueError, OverflowError, OSError, UnicodeError) as error:
        raise BadElfError(f"{name}: damaged ELF file ({error})") from None


class Image:
    """Bounded reading of one object within a file."""

    def __init__(self, descriptor: int, offset: int, size: int, name: str) -> None:
        self.descriptor = descriptor
        self.offset = offset
        self.size = size
        self.name = name
        self.budget = MAX_READ

    def read(self, start: int, length: int, what: str) -> bytes:
        self.budget -= length + 64
        if self.budget < 0:
            raise BadElfError(f"{self.name}: damaged ELF file (its tables have no end)")
        if start < 0 or length < 0 or start + length > self.size:
            raise BadElfError(f"{self.name}: cut short: {what} lies outside the file", "fetch or build it again")
        return os.pread(self.descriptor, length, self.offset + start)

    def text(self, start: int, limit: int, what: str) -> str:
        """The NUL-terminated text at `start`, at most `limit` bytes away from its end."""
        length = min(limit, MAX_TEXT, self.size - start)
        found = self.read(start, length, what)
        end = found.find(b"\0")
        if end < 0:
            raise BadElfError(f"{self.name}: {what} has no end")
        return found[:end].decode()


class Reader:
    """Reads one object, in the order in which the loader does."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self.kind = self.check_header()
        self.tags: list[tuple[int, int]] = []
        self.strings = (0, 0)

    def check_header(self) -> int:
        """Check the ELF header, read the program headers; give the object's type."""
        image = self.image
        if image.size < 4 or image.read(0, 4, "magic") != MAGIC:
            raise BadElfError(f"{image.name}: not an ELF file")
        identity = image.read(0, 16, "ELF header")
        if identity[4] != 2:
            raise BadElfError(f"{image.name}: a 32-bit ELF file", "only 64-bit x86 programs can be used")
        if identity[5] != 1:
            raise BadElfError(f"{image.name}: a big-endian ELF file", "only 64-bit x86 programs can be used")
        fields = _HEADER.unpack(image.read(0, _HEADER.size, "ELF header"))
        kind, machine, table, entry_size, count = fields[1], fields[2], fields[5], fields[9], fields[10]
        if machine != _X86_64:
            raise BadElfError(f"{image.name}: ELF for machine {machine}", "only 64-bit x86 programs can be used")
        if kind not in (_EXECUTABLE, _SHARED):
            raise BadElfError(f"{image.name}: neither a program nor a shared library (ELF type {kind})")
        if entry_size != _SEGMENT.size or not 0 < count <= MAX_SEGMENTS:
            raise BadElfError(f"{image.name}: damaged ELF file ({count} program headers of {entry_size} bytes)")
        raw = image.read(table, count * entry_size, "program headers")
        self.segments = list(_SEGMENT.iter_unpack(raw))
        for segment in self.segments:
            if segment[0] == _LOAD:
                image.read(segment[2] + max(segment[5] - 1, 0), min(segment[5], 1), "a segment")
        return int(kind)

    def facts(self) -> Facts:
        """All of it."""
        self.read_dynamic()
        needed = tuple(self.string(value) for tag, value in self.tags if tag == _NEEDED)
        interpreter = self.interpreter()
        flags = self.tag(_FLAGS_1) or 0
        runpath = self.tag(_RUNPATH)
        if runpath is None:
            runpath = self.tag(_RPATH)
        soname = self.tag(_SONAME)
        return Facts(
            needed=needed,
            soname="" if soname is None else self.string(soname),
            runpath=() if runpath is None else tuple(part for part in self.string(runpath).split(":") if part),
            interpreter=interpreter,
            versions=self.needed_versions(),
            defines=self.defined_versions(),
            dlopen=tuple(self.dlopens()),
            program=self.kind == _EXECUTABLE or bool(interpreter and not soname) or bool(flags & _PIE),
        )

    def interpreter(self) -> str:
        for kind, _, offset, _, _, size, _, _ in self.segments:
            if kind == _INTERPRETER:
                return self.image.text(offset, size, "the interpreter's name")
        return ""

    def read_dynamic(self) -> None:
        for kind, _, offset, _, _, size, _, _ in self.segments:
            if kind == _DYNAMIC:
                if size > MAX_DYNAMIC:
                    raise BadElfError(f"{self.image.name}: dynamic section of {size} bytes")
                raw = self.image.read(offset, size - size % _TAG.size, "the dynamic section")
                for tag, value in _TAG.iter_unpack(raw):
                    if tag == 0:
                        break
                    self.tags.append((tag, value))
                break
        table = self.tag(_STRTAB)
        if table is not None:
            self.strings = (self.file_offset(table), self.tag(_STRSZ) or 0)

    def tag(self, wanted: int) -> int | None:
        for tag, value in self.tags:
            if tag == wanted:
                return value
        return None

    def file_offset(self, address: int) -> int:
        """Where a virtual address lies in the file."""
        for kind, _, offset, start, _, size, _, _ in self.segments:
            if kind == _LOAD and start <= address < start + size:
                return int(offset + address - start)
        raise BadElfError(f"{self.image.name}: damaged ELF file (address {address:#x} is in no segment)")

    def string(self, index: int) -> str:
        start, size = self.strings
        if not 0 <= index < size:
            raise BadElfError(f"{self.image.name}: damaged ELF file (name outside the string table)")
        return self.image.text(start + index, size - index, "a name")

    def needed_versions(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for start, (_, count, name, first, _) in self.chain(_VERNEED, _VERNEEDNUM, _NEED):
            links = self.links(start + first, count, _NEED_AUX)
            names = [self.string(link[3]) for link in links if not link[1] & _WEAK]
            soname = self.string(name)
            found[soname] = found.get(soname, ()) + tuple(names)
        return found

    def defined_versions(self) -> tuple[str, ...]:
        found = []
        for start, (_, flags, _, _, _, first, _) in self.chain(_VERDEF, _VERDEFNUM, _DEFINITION):
            if not flags & _BASE:
                raw = self.image.read(start + first, _DEFINITION_AUX.size, "a version's name")
                found.append(self.string(_DEFINITION_AUX.unpack(raw)[0]))
        return tuple(found)

    def chain(self, tag: int, count_tag: int, layout: struct.Struct) -> Iterator[tuple[int, tuple[int, ...]]]:
        """The records of a version table with their file offsets; the last field links to the next."""
        address, count = self.tag(tag), self.tag(count_tag) or 0
        if address is None or count == 0:
            return
        if count > MAX_VERSIONS:
            raise BadElfError(f"{self.image.name}: damaged ELF file ({count} symbol versions)")
        start = self.file_offset(address)
        for _ in range(count):
            record = layout.unpack(self.image.read(start, layout.size, "a version table"))
            yield start, record
            if record[-1] == 0:
                return
            start += record[-1]

    def links(self, start: int, count: int, layout: struct.Struct) -> list[tuple[int, ...]]:
        found: list[tuple[int, ...]] = []
        for _ in range(min(count, MAX_VERSIONS)):
            record = layout.unpack(self.image.read(start, layout.size, "a version table"))
            found.append(record)
            if record[-1] == 0:
                break
            start += record[-1]
        return found

    def dlopens(self) -> Iterator[Dlopen]:
        for kind, _, offset, _, _, size, _, align in self.segments:
            if kind == _NOTES:
                for note in _notes(self.image.read(offset, min(size, MAX_NOTES), "notes"), 8 if align == 8 else 4):
                    yield from _dlopen_of(note)


def _notes(raw: bytes, align: int) -> Iterator[bytes]:
    """The contents of the notes that announce dlopen."""
    start = 0
    while start + _NOTE.size <= len(raw):
        name_size, size, kind = _NOTE.unpack_from(raw, start)
        name_start = start + _NOTE.size
        content = -(-(name_start + name_size) // align) * align
        if content + size > len(raw):
            return
        if kind == _DLOPEN_TYPE and raw[name_start : name_start + name_size] == b"FDO\0":
            yield raw[content : content + size]
        start = -(-(content + size) // align) * align


def _dlopen_of(note: bytes) -> Iterator[Dlopen]:
    """What one note says; a note that says nothing sensible is passed over, as the loader does."""
    try:
        found: Any = json.loads(note.rstrip(b"\0"))
    except (ValueError, RecursionError):
        return
    for item in found if isinstance(found, list) else ():
        sonames = item.get("soname") if isinstance(item, dict) else None
        if isinstance(sonames, list) and sonames and all(isinstance(name, str) for name in sonames):
            yield Dlopen(tuple(sonames), str(item.get("priority", "recommended")), str(item.get("feature", "")))
