"""/etc/ld.so.cache without running ldconfig: where the dynamic loader finds each shared library. Pure.

glibc's "new" format as glibc 2.32 and later write it (elf/dl-cache.h, `struct cache_file_new`): a header of 48
bytes, one record of 24 bytes for each library, then the strings. The loader searches the records by bisection, so
their order is part of the format.
"""

from __future__ import annotations

import posixpath
import re
import struct
from collections.abc import Iterable, Mapping

LIBRARY_DIRECTORIES = (
    "/usr/local/lib",
    "/usr/local/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
)
"""Where Debian's loader looks, in its order, in the merged-/usr spelling."""

CONFIGURATION = re.compile(r"/etc/ld\.so\.conf|/etc/ld\.so\.conf\.d/[^/]+\.conf")
"""Paths of the files that name further directories."""

_MAGIC = b"glibc-ld.so.cache1.1"
_HEADER = struct.Struct("<20sIIB3xI12x")
_RECORD = struct.Struct("<iIIIQ")
_LITTLE_ENDIAN = 2
_X86_64_LIBC6 = 0x0303
"""FLAG_ELF_LIBC6 | FLAG_X8664_LIB64 of elf/ldconfig.h."""

_LIBRARY = re.compile(r"(?:lib|ld-)[^/]+\.so(?:\.[^/]*)?")
_NUMBERS = re.compile(r"[0-9]+|[^0-9]")


def render(libraries: Iterable[tuple[str, str]]) -> bytes:
    """The file for these (soname, absolute path) pairs; the first of two with the same soname is the one found."""
    first: dict[str, str] = {}
    for soname, path in libraries:
        first.setdefault(soname, path)
    ordered = sorted(first.items(), key=lambda item: _order(item[0]), reverse=True)
    start = _HEADER.size + _RECORD.size * len(ordered)
    strings = bytearray()
    records = []
    for soname, path in ordered:
        key, value = start + len(strings), start + len(strings) + len(soname.encode()) + 1
        strings += b"%b\0%b\0" % (soname.encode(), path.encode())
        records.append(_RECORD.pack(_X86_64_LIBC6, key, value, 0, 0))
    header = _HEADER.pack(_MAGIC, len(ordered), len(strings), _LITTLE_ENDIAN, 0)
    return header + b"".join(records) + strings


def _order(soname: str) -> list[tuple[int, int]]:
    """The loader's order: runs of digits by value and after any other character, the rest byte by byte."""
    pieces = _NUMBERS.findall(soname)
    return [(1, int(piece)) if piece.isdigit() else (0, ord(piece)) for piece in pieces]


def is_library_name(name: str) -> bool:
    """Whether ldconfig would look at a file of this name."""
    return name.isascii() and bool(_LIBRARY.fullmatch(name)) and not name.endswith("-gdb.py")


def directories_of(configuration: str) -> list[str]:
    """Absolute directories that an ld.so.conf names; its `include` lines are not followed."""
    lines = (line.partition("#")[0].strip() for line in configuration.splitlines())
    return [posixpath.normpath(line) for line in lines if line.startswith("/") and "\0" not in line]


def find_libraries(
    files: Mapping[str, str], directories: Iterable[str], sonames: Mapping[str, str]
) -> list[tuple[str, str]]:
    """(soname, path) of every library in these directories, in their order.

    files: absolute path -> absolute path of the file that it leads to through symbolic links. sonames: path of a
    file -> its DT_SONAME; for others the file's own name is taken, which is right where the usual link
    (libz.so.1 -> libz.so.1.2.13) is among `files`.
    """
    by_directory: dict[str, list[str]] = {}
    for path in files:
        directory, _, name = path.rpartition("/")
        if is_library_name(name):
            by_directory.setdefault(directory, []).append(path)
    found = []
    for directory in dict.fromkeys(directories):
        for path in sorted(by_directory.get(directory, ())):
            found += _names(path, files, sonames)
    return found


def _names(path: str, files: Mapping[str, str], sonames: Mapping[str, str]) -> list[tuple[str, str]]:
    directory, _, name = path.rpartition("/")
    soname = sonames.get(files[path], name)
    if not is_library_name(soname):
        soname = name
    usual = f"{directory}/{soname}"
    pairs = [(soname, usual if usual in files else path)]
    return pairs if soname == name or files[path] == path else [*pairs, (name, path)]
