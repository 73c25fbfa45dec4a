"""Which function of a kernel an address is in, from the System.map that is kept beside it; and its image's bytes."""

from __future__ import annotations

import bisect
import re
import struct
from typing import NamedTuple

from swiftlet.model.error import KernelError

BASE = 0xFFFFFFFF80000000
"""Where the kernel's image is mapped: physical address 0 would be here (Documentation/x86/x86_64/mm.rst)."""

_ROW = re.compile(r"^([0-9a-f]{16}) (\w) (\S+)$", re.MULTILINE)
_CODE = frozenset("tTwW")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_LOAD = 1


NAMELESS = ".altinstr_aux"
"""A section of code without functions, behind that of the start: questions for what the processor can do, which are
asked from anywhere until they have been patched away (arch/x86/include/asm/cpufeature.h)."""


class Symbols:
    """The symbols of one kernel."""

    def __init__(self, system_map: str) -> None:
        """system_map: the file's text. Raises KernelError where it names no code."""
        rows = [(int(address, 16), kind, name) for address, kind, name in _ROW.findall(system_map)]
        self._places = {name: address for address, _, name in reversed(rows)}
        code = {address: name for address, kind, name in reversed(rows) if kind in _CODE and address >= BASE}
        self._starts = sorted(code)
        self._names = [code[address] for address in self._starts]
        try:
            ends = [self._places[name] for name in ("_text", "_etext", "_sinittext", "_einittext")]
        except KeyError as missing:
            raise KernelError(f"System.map has no {missing.args[0]}") from None
        behind = min((address for address, _, _ in rows if address > ends[3]), default=ends[3])
        self._nameless = range(ends[3], behind)
        self._ranges = range(ends[0], ends[1]), range(ends[2], ends[3]), self._nameless

    def address(self, name: str) -> int | None:
        """Where a symbol lies."""
        return self._places.get(name)

    def in_code(self, address: int) -> bool:
        """Whether an address is in the kernel's own code."""
        return any(address in each for each in self._ranges)

    def name(self, address: int) -> str:
        """The function that an address is in, "" where none is."""
        if not self.in_code(address):
            return ""
        if address in self._nameless:
            return NAMELESS
        place = bisect.bisect_right(self._starts, address) - 1
        return self._names[place] if place >= 0 else ""


class Span(NamedTuple):
    """Bytes of a file and where they are in memory."""

    address: int
    offset: int
    bytes: int


class Image:
    """The loaded parts of a vmlinux. Raises KernelError when it is none."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._spans = []
        try:
            first, size, count = (*struct.unpack_from("<Q", content, 32), *struct.unpack_from("<HH", content, 54))
            for number in range(count):
                kind, _, offset, address, _, length, _, _ = _SEGMENT.unpack_from(content, first + number * size)
                if kind == _LOAD:
                    self._spans.append(Span(address, offset, length))
        except struct.error:
            raise KernelError("the kernel's image is no ELF file of 64 bits") from None

    def bytes(self, address: int, size: int) -> bytes:
        """What is loaded at an address, b"" where nothing is."""
        for span in self._spans:
            if span.address <= address and address + size <= span.address + span.bytes:
                start = span.offset + address - span.address
                return self._content[start : start + size]
        return b""
