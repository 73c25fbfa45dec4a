"""How a collection runs beside pulls and starts without taking from them what they are about to use.

Roots are `locks/*` and `guests/*/bundle.json`. Between the moment in which somebody finds or makes a thing and
the moment in which a root names it, the thing is claimed:

- A **session** (a pull) appends every digest that it is about to ask for, find or make to its `notes`, while it
  holds `store.lock` shared. It may look only afterwards. What it noted is kept until it ends.
- A **start** pins the trees of its bundle: it writes bundle.json and checks its trees inside `pin`.
- A **collection** marks from the roots, then removes in short batches. For each batch it holds `store.lock`
  exclusively, reads the notes that came since, and takes what nobody claimed out of sight; what takes long (the
  files of a tree, the blocks of a large file) it frees afterwards, without the lock. So either the note came
  first and the thing stays, or the removal came first and whoever noted it sees that it is not there.

A session that ended while a collection ran leaves its notes behind, since the roots that it wrote came after the
mark; the collection removes them when it is done. Death by SIGKILL releases the kernel's flock, and the next
`sweep` or collection removes what the dead session was making. Nobody waits for longer than one batch.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from swiftlet.model.error import ConflictError, NotFoundError
from swiftlet.store.files import storing, write_all
from swiftlet.store.interim import claim, remove, remove_dead, take
from swiftlet.store.layout import Layout, checked_digest

_SESSION = "session-"
_LOCKS = ("store.lock", "collect.lock", "pins")
_STRANGER_SECONDS = 86400.0
"""Age from which something in tmp/ that belongs to no session is taken for forgotten."""


def open_lock(layout: Layout, name: str) -> int:
    """Descriptor of tmp/`name`, made where it is missing. Raises OSError."""
    return os.open(f"{layout.tmp}/{name}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


@contextmanager
def locked(layout: Layout, name: str, operation: int) -> Iterator[None]:
    """Hold tmp/`name` by flock (LOCK_SH, LOCK_EX, with LOCK_NB) for the body. Raises OSError."""
    fd = open_lock(layout, name)
    try:
        fcntl.flock(fd, operation)
        yield
    finally:
        os.close(fd)


def _note(digests: Iterable[str]) -> bytes:
    # A newline on both sides, so that what follows a line cut short by a full disk is still a line of its own.
    return "".join(f"\n{digest}\n" for digest in digests).encode()


def parse_notes(data: bytes) -> set[str]:
    """The digests of a notes file; a line that was cut short claims nothing, for its writer was told that it failed."""
    return {line.decode() for line in data.split(b"\n") if len(line) == 64}


class Guard:
    """A live session: a folder of its own in tmp/ and the notes that keep a collection away. Safe among threads.

    directory: absolute path for things half-made, on the store's file system; removed when the guard closes.
    Child processes must not inherit its descriptors (they are close-on-exec), or the session outlives this one.
    """

    def __init__(self, layout: Layout) -> None:
        """Raises FullError, NotFoundError where the store was not prepared."""
        self.layout = layout
        self._mutex = threading.Lock()
        self._noted: set[str] = set()
        with storing(layout.tmp):
            self.directory, self._fd = claim(f"{layout.tmp}/{_SESSION}")
            self._lock = open_lock(layout, "store.lock")
            self._notes = os.open(
                f"{self.directory}/notes", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
            )

    def keep(self, digests: Iterable[str]) -> None:
        """Claim digests until the guard closes. Look for a thing after this call, never before. Raises FullError."""
        with self._mutex:
            fresh = [digest for digest in digests if digest not in self._noted]
            if fresh:
                self._append(fresh)
                self._noted.update(fresh)

    def _append(self, fresh: Sequence[str]) -> None:
        with storing(self.directory):
            fcntl.flock(self._lock, fcntl.LOCK_SH)
            try:
                write_all(self._notes, _note(fresh))
            finally:
                fcntl.flock(self._lock, fcntl.LOCK_UN)

    def interim(self) -> str:
        """A path in `directory` that nobody uses yet."""
        return f"{self.directory}/{os.urandom(8).hex()}"

    def close(self) -> None:
        """End the session; what it was still making disappears, what a root names by now stays."""
        _empty(self.directory, keep="notes")
        try:
            with locked(self.layout, "collect.lock", fcntl.LOCK_SH | fcntl.LOCK_NB):
                shutil.rmtree(self.directory, ignore_errors=True)
        except OSError:
            pass  # a collection is running, which needs the notes and removes them when it is done
        for fd in (self._notes, self._lock, self._fd):
            os.close(fd)

    def __enter__(self) -> Guard:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _empty(folder: str, keep: str) -> None:
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    for name in names:
        if name != keep:
            remove(f"{folder}/{name}")


@contextmanager
def guarded(layout: Layout, guard: Guard | None) -> Iterator[Guard]:
    """The caller's guard, or one for the length of the body."""
    if guard is not None:
        yield guard
        return
    with Guard(layout) as own:
        yield own


@contextmanager
def pin(layout: Layout, trees: Sequence[str]) -> Iterator[None]:
    """Around the writing of a bundle.json that names `trees`: none of them goes before a collection can read it.

    Raises NotFoundError where a tree is not there (any more): materialise again, then pin again. Costs two system
    calls and one stat for each tree; waits for one batch at most while a collection runs.
    """
    for digest in trees:
        checked_digest(digest)
    with storing(layout.tmp):
        lock = open_lock(layout, "collect.lock")
    try:
        if _free(lock):
            _check_trees(layout, trees)
            yield
        else:
            with locked(layout, "store.lock", fcntl.LOCK_SH):
                _append_pins(layout, trees)
                _check_trees(layout, trees)
                yield
    finally:
        os.close(lock)


def _free(lock: int) -> bool:
    """Hold the collection's lock shared, so that none can begin; False where one is running."""
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _check_trees(layout: Layout, trees: Sequence[str]) -> None:
    for digest in trees:
        if not os.path.isdir(layout.tree(digest)):
            raise NotFoundError(f"tree {digest} is not in the store", "resolve its template again")


def _append_pins(layout: Layout, trees: Sequence[str]) -> None:
    with storing(layout.tmp):
        fd = os.open(f"{layout.tmp}/pins", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            write_all(fd, _note(trees))
        finally:
            os.close(fd)


@contextmanager
def collecting(layout: Layout, patience: float) -> Iterator[None]:
    """Be the one collection for the length of the body.

    patience: seconds to wait for another one. Raises ConflictError when that one does not end.
    """
    with storing(layout.tmp):
        lock = open_lock(layout, "collect.lock")
    deadline = time.monotonic() + patience
    try:
        while not take(lock):
            if time.monotonic() >= deadline:
                raise ConflictError("another collection is running", "wait until it has ended")
            time.sleep(0.01)
        yield
    finally:
        os.close(lock)


def sweep(layout: Layout) -> int:
    """Remove what dead sessions left in tmp/; returns how many things. For the daemon's start.

    Leaves everything alone while a collection runs, which sweeps by itself.
    """
    try:
        with collecting(layout, 0):
            return sweep_dead(layout)
    except ConflictError:
        return 0


def sweep_dead(layout: Layout) -> int:
    """`sweep`, for one who holds the collection's lock already."""
    names = [name for name in os.listdir(layout.tmp) if name not in _LOCKS]
    return sum(_sweep_one(f"{layout.tmp}/{name}", name.startswith(_SESSION)) for name in names)


def _sweep_one(path: str, session: bool) -> bool:
    try:
        if session:
            return remove_dead(path)
        if time.time() - os.lstat(path).st_mtime < _STRANGER_SECONDS:
            return False
        remove(path)
    except FileNotFoundError:
        return False
    return True


def live_sessions(layout: Layout) -> list[str]:
    """Folders of sessions whose process lives."""
    names = [name for name in os.listdir(layout.tmp) if name.startswith(_SESSION)]
    return [f"{layout.tmp}/{name}" for name in names if _is_live(f"{layout.tmp}/{name}")]


def _is_live(path: str) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _free(fd)
    finally:
        os.close(fd)


def notes_files(layout: Layout) -> list[str]:
    """Every file in which digests are claimed, of live sessions and of those that ended during this collection."""
    names = [name for name in os.listdir(layout.tmp) if name.startswith(_SESSION)]
    return [f"{layout.tmp}/{name}/notes" for name in names] + [f"{layout.tmp}/pins"]
