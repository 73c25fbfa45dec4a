"""A program without libraries that it names and never calls: it starts sooner, and needs less.

Distributions build one program for everybody, and loading a library for a feature that nobody asks for takes as long as
for one that is used: of QEMU's start, a third. What is changed is what the dynamic loader reads: the names of such
libraries (DT_NEEDED, System V ABI, "Dynamic Section"), the versions wanted of them (LSB 5.0, "Symbol Versioning"), and
their functions, which become weak: a weak symbol that nobody defines is 0, and calling it ends the program.

The file may come from an enemy: it is read by `elf.Reader`, and nothing is written outside the copy of it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from swiftlet.model.error import BadElfError
from swiftlet.resolve.elf import MAX_READ, MAX_TEXT, Image, Reader

Without = Mapping[str, Sequence[str]]
"""Soname -> its functions' names, or beginnings with a `*`; none are needed where its functions have versions."""

_DYNAMIC = 2
_NULL, _NEEDED, _PLTRELSZ, _HASH, _SYMTAB, _RELA, _RELASZ, _JMPREL = 0, 1, 2, 4, 6, 7, 8, 23
_GNU_HASH, _VERDEF = 0x6FFFFEF5, 0x6FFFFFFC
_VERSYM, _VERNEED, _VERNEEDNUM = 0x6FFFFFF0, 0x6FFFFFFE, 0x6FFFFFFF
_TAG = struct.Struct("<qQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_NEED = struct.Struct("<HHIII")
_AUX = struct.Struct("<IHHII")
_RELOCATION = struct.Struct("<QQq")

_WEAK = 2
_UNDEFINED = 0
_UNVERSIONED = 1
_HIDDEN = 0x8000

_COPY = 5
"""A relocation of data, which the program has room for itself (x86-64 ABI, table 4.9: R_X86_64_COPY)."""

MAX_SYMBOLS = 1 << 20


class _Need(NamedTuple):
    """A record of the versions that are wanted of one library."""

    start: int
    soname: str
    indices: frozenset[int]


def unlinked(descriptor: int, offset: int, size: int, name: str, without: Without) -> bytes:
    """The object at `offset` of a file, without those libraries; `name` is what errors call it.

    Raises BadElfError for a file that is damaged or has no symbol table.
    """
    if size > MAX_READ // 2:
        raise BadElfError(f"{name}: {size >> 20} MiB are too many to take libraries off")
    image = Image(descriptor, offset, size, name)
    try:
        return _Edit(image, without).edited()
    except (struct.error, ValueError, IndexError, OverflowError, OSError, UnicodeError) as error:
        raise BadElfError(f"{name}: damaged ELF file ({error})") from None


class _Edit:
    """One object, read and written at once."""

    def __init__(self, image: Image, without: Without) -> None:
        self.reader = Reader(image)
        self.reader.read_dynamic()
        self.data = bytearray(image.read(0, image.size, "the file"))
        self.without = without
        names = {self.reader.string(value) for tag, value in self.reader.tags if tag == _NEEDED}
        self.gone = names & without.keys()

    def edited(self) -> bytes:
        """All of it."""
        needs = self.needs()
        self.weaken({index for need in needs if need.soname in self.gone for index in need.indices})
        self.write_tags(self.write_needs([need for need in needs if need.soname not in self.gone]))
        return bytes(self.data)

    def needs(self) -> list[_Need]:
        """Which versions are wanted of which library."""
        found = []
        for start, (_, count, name, first, _) in self.reader.chain(_VERNEED, _VERNEEDNUM, _NEED):
            links = self.reader.links(start + first, count, _AUX)
            found.append(_Need(start, self.reader.string(name), frozenset(link[2] & ~_HIDDEN for link in links)))
        return found

    def weaken(self, versions: set[int]) -> None:
        """Let nobody miss the libraries' symbols: those of these versions, and those without one by their names."""
        patterns = [each for soname in self.gone for each in self.without[soname]]
        names = {each for each in patterns if not each.endswith("*")}
        beginnings = tuple(each[:-1] for each in patterns if each.endswith("*"))
        symbols, versyms = self.place(_SYMTAB), self.reader.tag(_VERSYM)
        table = self.reader.file_offset(versyms) if versyms is not None else None
        referred, copied = self.referred()
        count = max(self.symbols(), max(referred, default=0) + 1)
        if count > MAX_SYMBOLS:
            raise BadElfError(f"{self.reader.image.name}: damaged ELF file ({count} symbols)")
        for index in range(1, count):
            start = symbols + index * _SYMBOL.size
            name, info, other, section, value, size = _SYMBOL.unpack_from(self.data, start)
            if not name or (section != _UNDEFINED and index not in copied):
                continue
            version = struct.unpack_from("<H", self.data, table + 2 * index)[0] & ~_HIDDEN if table is not None else 0
            if version not in versions:
                called = self.name(name)
                if version > _UNVERSIONED or not (called in names or called.startswith(beginnings)):
                    continue
            if section != _UNDEFINED:
                raise BadElfError(
                    f"{self.reader.image.name}: {self.name(name)} of a library left out is data, no function"
                )
            _SYMBOL.pack_into(self.data, start, name, _WEAK << 4 | info & 15, other, section, value, size)
            if table is not None:
                struct.pack_into("<H", self.data, table + 2 * index, _UNVERSIONED)

    def name(self, index: int) -> str:
        """A symbol's name."""
        start, size = self.reader.strings
        if not 0 <= index < size:
            raise BadElfError(f"{self.reader.image.name}: damaged ELF file (name outside the string table)")
        end = self.data.find(b"\0", start + index, start + index + MAX_TEXT)
        return self.data[start + index : max(end, start + index)].decode("latin-1")

    def referred(self) -> tuple[set[int], set[int]]:
        """Which symbols relocations name, and which of these are copied from a library."""
        named: set[int] = set()
        copied: set[int] = set()
        for where, length in ((_RELA, _RELASZ), (_JMPREL, _PLTRELSZ)):
            address, size = self.reader.tag(where), self.reader.tag(length) or 0
            if address is None or not size:
                continue
            start = self.reader.file_offset(address)
            if start + size > len(self.data):
                raise BadElfError(f"{self.reader.image.name}: cut short: relocations lie outside the file")
            whole = memoryview(self.data)[start : start + size - size % _RELOCATION.size]
            for _, info, _ in _RELOCATION.iter_unpack(whole):
                named.add(info >> 32)
                if info & 0xFFFFFFFF == _COPY:
                    copied.add(info >> 32)
        return named, copied

    def symbols(self) -> int:
        """How many symbols there are, as far as hash tables lead to them, which are for finding definitions."""
        if (address := self.reader.tag(_HASH)) is not None:
            return self.words(self.reader.file_offset(address), 2)[1]
        if (address := self.reader.tag(_GNU_HASH)) is not None:
            return self.hashed(self.reader.file_offset(address))
        return 0

    def hashed(self, start: int) -> int:
        """The end of a GNU hash table's last chain. Its last word has bit 0 set; the first symbols are in none."""
        count, first, bloom, _ = self.words(start, 4)
        buckets = start + 16 + 8 * bloom
        last = max(self.words(buckets, min(count, MAX_SYMBOLS)), default=0)
        if last < first:
            return first
        while not self.words(buckets + 4 * (count + last - first), 1)[0] & 1:
            last += 1
        return last + 1

    def words(self, start: int, count: int) -> tuple[int, ...]:
        """Words of four bytes."""
        return struct.unpack_from(f"<{count}I", self.data, start)

    def write_needs(self, kept: list[_Need]) -> dict[int, int | None]:
        """Link the records that stay; what becomes of the tags: a value, or None for one that goes."""
        if (
            not kept
        ):  # without either table the loader has none of versions that a symbol's number could be looked up in
            changed: dict[int, int | None] = {_VERNEED: None, _VERNEEDNUM: None}
            return changed if self.reader.tag(_VERDEF) is not None else changed | {_VERSYM: None}
        for need, following in zip(kept, [*kept[1:], None], strict=True):
            step = following.start - need.start if following else 0
            struct.pack_into("<I", self.data, need.start + 12, step)
        address = self.reader.tag(_VERNEED)
        assert address is not None
        return {_VERNEED: address + kept[0].start - self.reader.file_offset(address), _VERNEEDNUM: len(kept)}

    def write_tags(self, changed: dict[int, int | None]) -> None:
        """Write the dynamic section anew."""
        tags = []
        for tag, value in self.reader.tags:
            if tag == _NEEDED and self.reader.string(value) in self.gone:
                continue
            new = changed.get(tag, value)
            if new is not None:
                tags.append((tag, new))
        start = next(segment[2] for segment in self.reader.segments if segment[0] == _DYNAMIC)
        tags += [(_NULL, 0)] * (len(self.reader.tags) - len(tags))
        for place, pair in enumerate(tags):
            _TAG.pack_into(self.data, start + place * _TAG.size, *pair)

    def place(self, tag: int) -> int:
        """Where in the file that lies to which a tag points."""
        address = self.reader.tag(tag)
        if address is None:
            raise BadElfError(f"{self.reader.image.name}: damaged ELF file (no symbol table)")
        return self.reader.file_offset(address)
