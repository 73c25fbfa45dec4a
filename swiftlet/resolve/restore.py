"""Lock -> store: fetch exactly the files of a lock that the store lacks, each checked by its digest."""

from __future__ import annotations

import os
from collections.abc import Sequence

from swiftlet.model.closure import Entry
from swiftlet.model.error import CorruptError, FetchError, ResolveError
from swiftlet.resolve.archive import PACKAGE, Archive, Member
from swiftlet.resolve.assemble import Pinned, Tools, assemble
from swiftlet.resolve.lock import Lock
from swiftlet.resolve.protocol import is_executable
from swiftlet.resolve.wheel import Wheels, ensure_wheel


def restore(lock: Lock, missing: Sequence[Entry], tools: Tools, below: Sequence[Entry] = ()) -> None:
    """Put the missing files of a lock into the store. below: the entries of what its template requires.

    Raises FetchError (StaleListsError among them) where a version can no longer be had, ResolveError where what is
    had is not what the lock says.
    """
    by_source: dict[str, list[Entry]] = {}
    for entry in missing:
        by_source.setdefault(entry.source, []).append(entry)
    _restore_packages(lock, by_source, tools)
    _restore_wheels(lock, by_source, tools)
    for source, entries in by_source.items():
        if source.startswith("host:"):
            _restore_host(source.removeprefix("host:"), entries, tools)
    if any(not tools.objects.has(entry.digest, is_executable(entry.mode)) for entry in missing):
        _make_again(lock, missing, tools, below)


def _restore_packages(lock: Lock, by_source: dict[str, list[Entry]], tools: Tools) -> None:
    wanted = [package for package in lock.packages if package.origin in by_source]
    files = tools.apt.fetch(wanted)
    for number, package in enumerate(wanted):
        tools.progress("unpack", package.name, number, len(wanted))
        with Archive(files[package.name], package.sha256, f"{tools.cache}/index", PACKAGE) as archive:
            for entry in by_source[package.origin]:
                _put(entry, archive, archive.members, tools)


def _put(entry: Entry, archive: Archive, members: dict[str, Member], tools: Tools) -> None:
    """Keep one file of an archive, found by its path, or by its content where a link gave it another path."""
    member = members.get(entry.path)
    if member is None or member.digest != entry.digest:
        member = next((item for item in members.values() if item.digest == entry.digest), None)
    if member is None:
        raise ResolveError(f"{entry.source} does not hold {entry.path} as the lock has it", "resolve the template anew")
    descriptor, offset = archive.content(member)
    executable = is_executable(entry.mode)
    tools.objects.put(descriptor, offset=offset, size=member.size, executable=executable, expected=entry.digest)


def _restore_wheels(lock: Lock, by_source: dict[str, list[Entry]], tools: Tools) -> None:
    for wheel in lock.wheels:
        if wheel.origin in by_source:
            ensure_wheel(tools.cache, wheel, tools.progress)
            with Wheels(tools.cache, [wheel]) as wheels:
                archive = wheels.archives[wheel.origin]
                for entry in by_source[wheel.origin]:
                    _put(entry, archive, archive.members, tools)


def _restore_host(path: str, entries: list[Entry], tools: Tools) -> None:
    for entry in entries:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise FetchError(
                f"the lock names {path} of its host, which cannot be read here: {error.strerror}"
            ) from None
        try:
            tools.objects.put(descriptor, executable=is_executable(entry.mode), expected=entry.digest)
        except CorruptError:
            raise ResolveError(f"{path} of this host is not the file that the lock names", "resolve anew") from None
        finally:
            os.close(descriptor)


def _make_again(lock: Lock, missing: Sequence[Entry], tools: Tools, below: Sequence[Entry]) -> None:
    """What was generated is generated again, from the lock's own versions of everything."""
    own = tuple(package for package in lock.packages if package.name not in lock.borrowed)
    beneath = [package for package in lock.packages if package.name in lock.borrowed]
    pinned = Pinned(own, lock.wheels)
    assemble(lock.template, tools, below=below, beneath=beneath, family=lock.family, pinned=pinned)
    for entry in missing:
        if not tools.objects.has(entry.digest, is_executable(entry.mode)):
            raise ResolveError(f"{entry.path} ({entry.source}) cannot be made again as the lock has it")
