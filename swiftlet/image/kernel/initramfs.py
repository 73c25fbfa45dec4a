"""A small initramfs with which a distribution's kernel boots our image: the modules that it needs, and what loads them.

The archive is the kernel's own format (cpio "newc", Documentation/driver-api/early-userspace/buffer-format.rst). What a
module needs is read from the module itself, so that no list has to have been made beside it (depmod).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from swiftlet.model.error import InputError

NEEDED = ("virtio_pci", "virtio_blk", "virtio_console", "erofs", "overlay")
"""What our kernels have built in, and a machine does not come to its workload without."""

WANTED = (*NEEDED, "virtio_net", "virtio_rng", "virtiofs")
"""And what some machines need: networks, volumes."""

_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")
"""In a module's .modinfo (scripts/mod/modpost.c): the names of others, with commas between them."""

_COMPRESSED = (".ko.gz", ".ko.xz", ".ko.zst")
"""What modules end in that were installed compressed (scripts/Makefile.modinst)."""

_FOLDER, _FILE = 0o040755, 0o100755


class Entry(NamedTuple):
    """A file of an archive, or a folder where content is None."""

    path: str
    content: bytes | None


def modules_of(folder: str) -> dict[str, str]:
    """The modules below a folder, by name: paths. Raises InputError for compressed ones."""
    found = {}
    for place, _, names in os.walk(f"{folder}/kernel"):
        for name in names:
            if name.endswith(_COMPRESSED):
                raise InputError(
                    f"{place}/{name} is compressed", "unpack the modules, or take a kernel with plain ones"
                )
            if name.endswith(".ko"):
                found[_module_name(name.removesuffix(".ko"))] = f"{place}/{name}"
    return found


def built_in(folder: str) -> set[str]:
    """The names of what is no module because it is in the kernel itself, as far as it is told."""
    try:
        with open(f"{folder}/modules.builtin") as file:
            return {_module_name(os.path.basename(line.strip()).removesuffix(".ko")) for line in file}
    except FileNotFoundError:
        return set()


def dependencies_of(module: bytes) -> list[str]:
    """The names of the modules that a module needs."""
    found = _DEPENDS.search(module)
    return [_module_name(name) for name in found[1].decode().split(",") if name] if found else []


def _module_name(text: str) -> str:
    return text.replace("-", "_")


def in_order(dependencies: Mapping[str, Sequence[str]], wanted: Iterable[str]) -> list[str]:
    """The wanted modules, each after those that it needs. What is none of the modules is left out: it is built in."""
    found: list[str] = []
    seen: set[str] = set()

    def add(name: str) -> None:
        if name in seen or name not in dependencies:
            return
        seen.add(name)  # before those that it needs: they may need it as well
        for needed in dependencies[name]:
            add(needed)
        found.append(name)

    for name in wanted:
        add(name)
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


def for_kernel(folder: str, loader: str, wanted: Sequence[str] = WANTED) -> bytes:
    """The initramfs of a kernel. folder: its modules' (/lib/modules/RELEASE). loader: the compiled loader.c.

    wanted: the names of the modules that it is to load, of which it may have some built in.
    Raises InputError for a kernel that lacks what a machine needs, OSError.
    """
    paths = modules_of(folder)
    if missing := [name for name in NEEDED if name not in paths and name not in built_in(folder)]:
        raise InputError(f"{folder} has no {', '.join(missing)}", "a machine needs them: give another kernel's modules")
    contents = {name: _read(path) for name, path in _closure(paths, wanted).items()}
    order = in_order({name: dependencies_of(content) for name, content in contents.items()}, wanted)
    entries = [Entry(name, None) for name in ("dev", "root", "lib")]
    entries += [Entry(f"lib/{name}.ko", contents[name]) for name in order]
    names = "".join(f"/lib/{name}.ko\n" for name in order)
    return archive([*entries, Entry("modules", names.encode()), Entry("init", _read(loader))])


def _closure(paths: Mapping[str, str], wanted: Iterable[str]) -> dict[str, str]:
    """The wanted modules and all that they need, by name: paths."""
    found: dict[str, str] = {}
    pending = [name for name in wanted if name in paths]
    while pending:
        name = pending.pop()
        if name not in found:
            found[name] = paths[name]
            pending += [needed for needed in dependencies_of(_read(paths[name])) if needed in paths]
    return found


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
