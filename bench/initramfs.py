"""A small initramfs for a stock kernel that boots our image: the modules that it needs, and what loads them.

The archive is the kernel's own format (cpio "newc", Documentation/driver-api/early-userspace/buffer-format.rst).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

WANTED = ("virtio_pci", "virtio_blk", "virtio_console", "virtio_net", "virtio-rng", "erofs", "overlay")
"""What swiftlet's kernels have built in and Debian's cloud kernel has as modules."""

_FOLDER, _FILE = 0o040755, 0o100755


class Entry(NamedTuple):
    """A file of an archive, or a folder where content is None."""

    path: str
    content: bytes | None


def in_order(dependencies: Mapping[str, Sequence[str]], wanted: Iterable[str]) -> list[str]:
    """The paths of the wanted modules (names), each after those that it needs. What is built in is left out."""
    paths = {os.path.basename(path).partition(".")[0]: path for path in dependencies}
    found: list[str] = []

    def add(path: str) -> None:
        for needed in dependencies[path]:
            add(needed)
        if path not in found:
            found.append(path)

    for name in wanted:
        if name in paths:
            add(paths[name])
    return found


def dependencies_of(text: str) -> dict[str, list[str]]:
    """modules.dep: path -> the paths that it needs."""
    found = {}
    for line in text.splitlines():
        path, _, needed = line.partition(":")
        found[path] = needed.split()
    return found


def archive(entries: Iterable[Entry]) -> bytes:
    """The entries as a cpio archive that the kernel unpacks."""
    parts = [_record(number, *_fields(entry)) for number, entry in enumerate(entries, 1)]
    return b"".join([*parts, _record(0, "TRAILER!!!", 0, b"")])


def _fields(entry: Entry) -> tuple[str, int, bytes]:
    return (entry.path, _FOLDER, b"") if entry.content is None else (entry.path, _FILE, entry.content)


def _record(inode: int, name: str, mode: int, content: bytes) -> bytes:
    named = name.encode() + b"\0"
    numbers = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(named), 0)
    head = b"070701" + b"".join(b"%08x" % number for number in numbers) + named
    return _padded(head) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def for_stock_kernel(modules: str, loader: str) -> bytes:
    """The initramfs of a kernel. modules: its folder below /lib/modules. loader: the compiled `guests/loader.c`."""
    with open(f"{modules}/modules.dep") as file:
        paths = in_order(dependencies_of(file.read()), WANTED)
    entries = [Entry(name, None) for name in ("dev", "root", "lib")]
    for path in paths:
        with open(f"{modules}/{path}", "rb") as module:
            entries.append(Entry(f"lib/{os.path.basename(path)}", module.read()))
    names = "".join(f"/lib/{os.path.basename(path)}\n" for path in paths)
    with open(loader, "rb") as program:
        entries += [Entry("modules", names.encode()), Entry("init", program.read())]
    return archive(entries)
