"""A closure in the making: what packs, links and generation add to what the walker takes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from swiftlet.model.closure import Entry
from swiftlet.model.error import CorruptError, ResolveError
from swiftlet.resolve.protocol import PLAIN, Objects, Progress, file_mode, is_executable
from swiftlet.resolve.supplies import Supplies
from swiftlet.resolve.walk import KERNEL_FOLDERS, Found, Walker

GENERATED = "generated"
"""The source of what is made here rather than fetched."""


class Assembly(NamedTuple):
    """The parts that packs work on."""

    walker: Walker
    supplies: Supplies
    objects: Objects

    def take(self, path: str, why: str) -> bool:
        """Take a path of the supplies if it is there."""
        return self.walker.take(path, why) is not None

    def take_below(self, folder: str, why: str, without: tuple[str, ...] = ()) -> int:
        """Take every file and link below a folder of the packages read so far, except below `without`."""
        skipped = tuple(f"{path}/" for path in without)
        count = 0
        for found in self.below(folder):
            if not found.member.path.startswith(skipped) and found.member.kind != "directory":
                self.walker.take(found.member.path, why)
                count += 1
        return count

    def below(self, folder: str) -> Iterator[Found]:
        """Members below a folder, in packages."""
        universe = self.supplies.universe
        for name in list(universe.archives) if universe else ():
            for found in universe.own_files([name]) if universe else ():
                if found.member.path.startswith(f"{folder}/"):
                    yield found

    def read(self, found: Found) -> bytes:
        """A member's content."""
        descriptor, offset = self.supplies.content(found)
        return os.pread(descriptor, found.member.size, offset)

    def write(self, path: str, content: bytes, why: str, mode: int = PLAIN) -> None:
        """Add a file that is made here."""
        stored = self.objects.put_bytes(content, executable=is_executable(mode))
        entry = Entry(path, "file", file_mode(mode), stored.digest, stored.size, source=GENERATED, why=why)
        self.walker.add(entry)

    def link(self, path: str, target: str, why: str) -> None:
        """Add a symbolic link; what it points to is not looked for."""
        self.walker.add(Entry(path, "symlink", 0o777, target=target, source=GENERATED, why=why))

    def folder(self, path: str, why: str, mode: int = 0o755, owner: int = 0, source: str = GENERATED) -> None:
        """Add a folder."""
        self.walker.add(Entry(path, "directory", mode, uid=owner, gid=owner, source=source, why=why))


def store_members(assembly: Assembly, progress: Progress) -> None:
    """Put every file that has been taken into the store. Raises FullError, CorruptError, StoreError."""
    waiting = [taken for taken in assembly.walker.taken.values() if taken.found is not None]
    total = sum(taken.entry.size for taken in waiting)
    done = 0
    for taken in sorted(waiting, key=lambda taken: (taken.entry.source, taken.entry.path)):
        entry, found = taken
        executable = is_executable(entry.mode)
        if found is not None and not assembly.objects.has(entry.digest, executable):
            _store(assembly, found, entry, executable)
        done += entry.size
        progress("unpack", entry.path.rpartition("/")[2], done, total)


def _store(assembly: Assembly, found: Found, entry: Entry, executable: bool) -> None:
    descriptor, offset = assembly.supplies.content(found)
    try:
        assembly.objects.put(descriptor, offset=offset, size=entry.size, executable=executable, expected=entry.digest)
    except CorruptError as error:
        text = f"{entry.path} ({entry.source}) changed while it was being taken: {error}"
        raise CorruptError(text, "try again") from None


def add_empty_folders(assembly: Assembly, founds: list[Found], own: Iterable[Found]) -> None:
    """Of `founds` the folders that nothing of `own` lies in, or whose mode is unusual: programs write there."""
    parents = {found.member.path.rpartition("/")[0] for found in own}
    for found in founds:
        member = found.member
        if member.kind == "directory" and not _is_kernel(member.path):
            unusual = member.mode & 0o1777 not in (0o755, 0o775)
            if (member.path not in parents or unusual) and member.path not in assembly.walker.taken:
                why = f"empty folder of {found.package}" if not unusual else f"folder of {found.package}"
                assembly.folder(member.path, why, member.mode & 0o1777, source=found.source)


def _is_kernel(path: str) -> bool:
    return path.startswith(tuple(f"{folder}/" for folder in KERNEL_FOLDERS)) or path in KERNEL_FOLDERS


def check_paths(entries: list[Entry]) -> None:
    """Raise ResolveError where one entry lies below another that is no folder: no tree can hold both."""
    leaves = {entry.path: entry for entry in entries if entry.kind != "directory"}
    for entry in entries:
        parent = entry.path.rpartition("/")[0]
        while parent:
            if parent in leaves:
                above = leaves[parent]
                raise ResolveError(
                    f"{entry.path} ({entry.source}) lies below {parent}, which {above.source} makes a {above.kind}",
                    "leave one of the two out with `exclude`",
                )
            parent = parent.rpartition("/")[0]
