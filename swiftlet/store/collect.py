"""Removal of what no reference and no guest needs, beside running pulls and starts (see `guard` for how).

Roots: every lock, every guest's bundle.json, every live session's notes. A root keeps each closure, tree and object
whose digest it names; a closure keeps its objects. Composition trees (see `image.tree`) are named by guests only:
they go with the last guest that has them and are made again in milliseconds.

The order is trees, closures, objects: as long as a closure can be found its objects are there, and an object that
still has a link in a tree is left alone.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Iterator
from fcntl import LOCK_EX
from typing import NamedTuple

from swiftlet.model.error import ConflictError
from swiftlet.store.files import INTERIM, storing
from swiftlet.store.guard import collecting, live_sessions, locked, notes_files, parse_notes, sweep_dead
from swiftlet.store.interim import remove
from swiftlet.store.layout import DIGEST, Layout, digests_in, parse_object

BATCH = 128
"""Things that are taken away under the lock at once: a millisecond or two in which a start would wait."""

_PATIENCE = 10.0
_DAMAGED = ".damaged"
_REMOVED = ".removed"

_INTERIM_SECONDS = 60.0
"""Age from which a name that lasts for microseconds is taken for a dead process's."""

_LARGE = 1 << 20
"""Bytes from which freeing a file's blocks takes longer than its unlink."""


class Collected(NamedTuple):
    """What was removed, or would be: counts, and bytes of the objects, records and cache files."""

    objects: int
    trees: int
    closures: int
    bytes: int


class _Candidate(NamedTuple):
    path: str
    digest: str
    size: int


def collect(layout: Layout, *, dry_run: bool = False, cache: bool = False) -> Collected:
    """Remove what nothing needs; with `cache` also everything in cache/.

    Makes no file, so that it works on a full disk. dry_run: only count. Raises ConflictError while another
    collection runs, or with `cache` while a pull does (then nothing was removed), StoreError.
    """
    with storing(layout.root), collecting(layout, _PATIENCE):
        if cache and live_sessions(layout):
            hint = "wait until that has ended, or leave the cache"
            raise ConflictError("the cache is in use: something is being resolved or built", hint)
        sweep_dead(layout)
        collection = _Collection(layout, dry_run)
        try:
            return collection.run(cache)
        finally:
            collection.finish()


class _Collection:
    """One run. kept: every digest that a root or a note names, and what those need."""

    def __init__(self, layout: Layout, dry_run: bool) -> None:
        self.layout = layout
        self.dry_run = dry_run
        self.kept: set[str] = set()
        self._read: dict[str, int] = {}

    def run(self, cache: bool) -> Collected:
        """Mark, then remove."""
        for path in root_files(self.layout):
            named = digests_in(_content(path))
            self.keep(named)
            if path.startswith(f"{self.layout.guests}/"):
                self.kept |= {digest + _DAMAGED for digest in named}
        self._remove_leftovers()
        trees = self._remove(_trees(self.layout))
        closures = self._remove(_closures(self.layout))
        objects = self._remove(_objects(self.layout))
        freed = _size(closures) + _size(objects) + (self._remove_cache() if cache else 0)
        return Collected(len(objects), len(trees), len(closures), freed)

    def finish(self) -> None:
        """Forget the notes of starts and of sessions that ended meanwhile: their roots are there to be read now."""
        with locked(self.layout, "store.lock", LOCK_EX):
            remove(f"{self.layout.tmp}/pins")
        sweep_dead(self.layout)

    def keep(self, digests: Iterable[str]) -> None:
        """Keep digests, and the objects of those that are closures."""
        for digest in digests:
            if digest not in self.kept:
                self.kept.add(digest)
                self.kept |= digests_in(_content(self.layout.closure(digest)))

    def _remove(self, found: Iterator[_Candidate]) -> list[_Candidate]:
        """Take away every candidate that is not kept, batch by batch; returns those that went."""
        removed: list[_Candidate] = []
        for batch in _batches(candidate for candidate in found if candidate.digest not in self.kept):
            descriptors = [] if self.dry_run else _hold_large(batch)
            started = time.monotonic()
            gone = self._take_away(batch)
            spent = time.monotonic() - started
            _release(descriptors)
            self._delete_trees(gone)
            removed += gone
            time.sleep(spent)  # flock is not fair: let those in who wait
        return removed

    def _take_away(self, batch: list[_Candidate]) -> list[_Candidate]:
        """Make a batch disappear in short steps of which each is whole, but for what was claimed since the mark."""
        with locked(self.layout, "store.lock", LOCK_EX):
            self._read_notes()
            unclaimed = [candidate for candidate in batch if candidate.digest not in self.kept]
            return [candidate for candidate in unclaimed if self.dry_run or self._hide(candidate.path)]

    def _hide(self, path: str) -> bool:
        """Unlink a file, or rename a tree so that nobody finds it; False where it must or did not go."""
        try:
            if os.path.dirname(path) == self.layout.trees:
                os.rename(path, path + _REMOVED)
            elif path.startswith(self.layout.objects) and os.lstat(path).st_nlink > 1:
                return False
            else:
                os.unlink(path)
        except FileNotFoundError:
            return False
        return True

    def _delete_trees(self, candidates: list[_Candidate]) -> None:
        for candidate in candidates:
            if not self.dry_run and os.path.dirname(candidate.path) == self.layout.trees:
                remove(candidate.path + _REMOVED)

    def _remove_leftovers(self) -> None:
        """Finish what a killed collection had renamed already, and what a killed process was about to replace."""
        if self.dry_run:
            return
        for name in os.listdir(self.layout.trees):
            if name.endswith(_REMOVED):
                remove(f"{self.layout.trees}/{name}")
        for name in os.listdir(self.layout.objects):
            path = f"{self.layout.objects}/{name}"
            if name.startswith(INTERIM) and time.time() - os.lstat(path).st_ctime > _INTERIM_SECONDS:
                remove(path)

    def _read_notes(self) -> None:
        for path in notes_files(self.layout):
            start = self._read.get(path, 0)
            data = _content(path, start)
            self._read[path] = start + len(data)
            self.keep(parse_notes(data))

    def _remove_cache(self) -> int:
        """Empty cache/, unless a pull began meanwhile; returns bytes."""
        if self.dry_run:
            return folder_bytes(self.layout.cache)
        with locked(self.layout, "store.lock", LOCK_EX):
            if live_sessions(self.layout):
                return 0
            hidden = [_rename_cached(entry.path) for entry in list(os.scandir(self.layout.cache))]
        freed = sum(folder_bytes(path) for path in hidden)
        for path in hidden:
            remove(path)
        return freed


def root_files(layout: Layout) -> list[str]:
    """Paths of the documents that keep what they name: locks, guests' bundles, and those that snapshots hold."""
    locks = [f"{layout.locks}/{name}" for name in os.listdir(layout.locks)]
    snapshots = [f"{layout.snapshots}/{name}/snapshot.json" for name in os.listdir(layout.snapshots)]
    return locks + snapshots + [f"{layout.guests}/{name}/bundle.json" for name in os.listdir(layout.guests)]


def folder_bytes(path: str) -> int:
    """Bytes of all files in a folder (or of one file), as far as they stay there while we look."""
    total = os.lstat(path).st_size if not os.path.isdir(path) else 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                total += os.lstat(f"{folder}/{name}").st_size
            except FileNotFoundError:
                pass
    return total


def _rename_cached(path: str) -> str:
    hidden = f"{path}{_REMOVED}" if not path.endswith(_REMOVED) else path
    try:
        os.rename(path, hidden)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EISDIR, errno.ENOTDIR):
            raise
        return path  # the leftover of a killed collection has the name: delete this one where it is
    return hidden


def _hold_large(batch: list[_Candidate]) -> list[int]:
    """Descriptors on a batch's large files, so that their blocks are freed when these close, after the lock."""
    paths = [candidate.path for candidate in batch if candidate.size >= _LARGE]
    return [os.open(path, os.O_PATH | os.O_CLOEXEC) for path in paths if os.path.lexists(path)]


def _release(descriptors: list[int]) -> None:
    for fd in descriptors:
        os.close(fd)


def _content(path: str, start: int = 0) -> bytes:
    try:
        with open(path, "rb") as file:
            file.seek(start)
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return b""


def _trees(layout: Layout) -> Iterator[_Candidate]:
    for name in os.listdir(layout.trees):
        # A damaged tree is kept for the guests that have it mounted, and for no lock.
        if DIGEST.fullmatch(name.removesuffix(_DAMAGED)):
            yield _Candidate(f"{layout.trees}/{name}", name, 0)


def _closures(layout: Layout) -> Iterator[_Candidate]:
    for name in os.listdir(layout.closures):
        if DIGEST.fullmatch(name.removesuffix(".json")):
            path = f"{layout.closures}/{name}"
            yield _Candidate(path, name.removesuffix(".json"), len(_content(path)))


def _objects(layout: Layout) -> Iterator[_Candidate]:
    for entry in object_files(layout):
        parsed = parse_object(os.path.basename(os.path.dirname(entry.path)), entry.name)
        if parsed:
            yield _Candidate(entry.path, parsed[0], _status_size(entry))


def object_files(layout: Layout) -> Iterator[os.DirEntry[str]]:
    """Everything in the folders of objects/."""
    for folder in sorted(os.listdir(layout.objects)):
        path = f"{layout.objects}/{folder}"
        if os.path.isdir(path) and not os.path.islink(path):
            yield from os.scandir(path)


def _status_size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0


def _batches(candidates: Iterator[_Candidate]) -> Iterator[list[_Candidate]]:
    batch: list[_Candidate] = []
    for candidate in candidates:
        batch.append(candidate)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _size(candidates: list[_Candidate]) -> int:
    return sum(candidate.size for candidate in candidates)
