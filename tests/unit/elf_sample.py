"""Builds small ELF files for tests: the headers, dynamic section and version tables that a loader reads."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence

_BASE = 0x400000


def build_elf(
    *,
    needed: Sequence[str] = (),
    soname: str = "",
    runpath: str = "",
    interpreter: str = "",
    versions: Mapping[str, Sequence[str]] | None = None,
    weak: Sequence[str] = (),
    defines: Sequence[str] = (),
    dlopen: object = None,
    kind: int = 3,
    machine: int = 62,
) -> bytes:
    strings = bytearray(b"\0")

    def name(text: str) -> int:
        strings.extend(text.encode() + b"\0")
        return len(strings) - len(text.encode()) - 1

    tags = [(1, name(item)) for item in needed]
    if soname:
        tags.append((14, name(soname)))
    if runpath:
        tags.append((29, name(runpath)))
    verneed = _verneed(
        {name(lib): [(name(v), 2 if v in weak else 0) for v in vs] for lib, vs in (versions or {}).items()}
    )
    verdef = _verdef([name(version) for version in defines])
    note = _note(dlopen) if dlopen is not None else b""
    program = interpreter.encode() + b"\0" if interpreter else b""

    count = 2 + bool(program) + bool(note)
    start = 64 + 56 * count
    places = {}
    body = bytearray()
    for key, data in (
        ("strings", bytes(strings)),
        ("verneed", verneed),
        ("verdef", verdef),
        ("note", note),
        ("interp", program),
    ):
        body.extend(b"\0" * (-len(body) % 8))
        places[key] = start + len(body)
        body.extend(data)
    tags += [(5, _BASE + places["strings"]), (10, len(strings))]
    if verneed:
        tags += [(0x6FFFFFFE, _BASE + places["verneed"]), (0x6FFFFFFF, len(versions or {}))]
    if verdef:
        tags += [(0x6FFFFFFC, _BASE + places["verdef"]), (0x6FFFFFFD, len(defines))]
    body.extend(b"\0" * (-len(body) % 8))
    dynamic_at = start + len(body)
    dynamic = b"".join(struct.pack("<qQ", *tag) for tag in [*tags, (0, 0)])
    body.extend(dynamic)
    size = start + len(body)

    headers = [struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 4096)]
    headers.append(_segment(2, dynamic_at, len(dynamic)))
    if program:
        headers.append(_segment(3, places["interp"], len(program)))
    if note:
        headers.append(_segment(4, places["note"], len(note)))
    identity = b"\x7fELF" + bytes([2, 1, 1]) + b"\0" * 9
    head = struct.pack("<16sHHIQQQIHHHHHH", identity, kind, machine, 1, 0, 64, 0, 0, 64, 56, count, 64, 0, 0)
    return head + b"".join(headers) + bytes(body)


def _segment(kind: int, offset: int, size: int) -> bytes:
    return struct.pack("<IIQQQQQQ", kind, 4, offset, _BASE + offset, _BASE + offset, size, size, 4)


def _verneed(needs: Mapping[int, Sequence[tuple[int, int]]]) -> bytes:
    data = b""
    for index, (library, names) in enumerate(needs.items()):
        step = 16 + 16 * len(names)
        data += struct.pack("<HHIII", 1, len(names), library, 16, step if index < len(needs) - 1 else 0)
        for number, (version, flags) in enumerate(names):
            data += struct.pack("<IHHII", 0, flags, 2, version, 16 if number < len(names) - 1 else 0)
    return data


def _verdef(names: Sequence[int]) -> bytes:
    data = b""
    for index, version in enumerate(names):
        data += struct.pack("<HHHHIII", 1, 0, index + 2, 1, 0, 20, 28 if index < len(names) - 1 else 0)
        data += struct.pack("<II", version, 0)
    return data


def _note(content: object) -> bytes:
    text = json.dumps(content).encode() + b"\0"
    text += b"\0" * (-len(text) % 4)
    return struct.pack("<III", 4, len(text), 0x407C0C0A) + b"FDO\0" + text
