"""Does the store hold what it says: every object re-read, every tree compared with its closure, every record unsealed.

Runs beside everything else: what is put or removed meanwhile is not looked at, and not reported. `repair` takes
what is damaged out of use.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from swiftlet.model.closure import Closure, Entry
from swiftlet.model.error import CorruptError, NotFoundError
from swiftlet.store.files import INTERIM, read_bytes, storing, unseal
from swiftlet.store.layout import DIGEST, Layout, parse_object
from swiftlet.store.objects import EMPTY, file_problem, object_problem
from swiftlet.store.plan import Folder, is_executable, plan_tree
from swiftlet.store.records import decode_closure

Progress = Callable[[int, int], None]
"""Called with the bytes that were read so far, and all that there are to read."""

_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Damage(NamedTuple):
    """path: absolute, of the object, the record, or the file in a tree. digest: the object's, closure's or tree's."""

    path: str
    digest: str
    problem: str


class Verified(NamedTuple):
    """checked: objects, trees and records that were looked at."""

    checked: int
    damaged: list[Damage]


def silent(done: int, total: int) -> None:
    """Progress that nobody watches."""


def verify(layout: Layout, progress: Progress = silent) -> Verified:
    """Check everything. Raises StoreError where the disk cannot be read."""
    with storing(layout.root):
        check = _Check(layout, progress)
        check.all_objects()
        for name in sorted(os.listdir(layout.trees)):
            check.tree_named(name)
        for path in _records(layout.closures):
            check.closure(path)
        for path in _records(layout.locks):
            check.lock(path)
        return Verified(check.checked, check.damaged)


def verify_trees(layout: Layout, digests: Iterable[str], progress: Progress = silent) -> Verified:
    """Check some trees and every object in them. Raises InputError for a bad digest, StoreError."""
    with storing(layout.root):
        check = _Check(layout, progress)
        known = {digest: check.closure(layout.closure(digest)) for digest in digests}
        check.total = sum(closure.size for closure in known.values() if closure)
        for digest, closure in known.items():
            for entry in _shared_files(closure):
                check.is_sound(entry.digest, is_executable(entry))
            if os.path.isdir(layout.tree(digest)):
                check.tree_named(digest)
        return Verified(check.checked, check.damaged)


class _Check:
    """One run. Every object is read once, however many trees have it."""

    def __init__(self, layout: Layout, progress: Progress) -> None:
        self.layout = layout
        self.progress = progress
        self.checked = 0
        self.total = 0
        self.damaged: list[Damage] = []
        self._done = 0
        self._sound: dict[tuple[str, bool], bool] = {}

    def report(self, path: str, digest: str, problem: str) -> None:
        """Add a finding."""
        self.damaged.append(Damage(path, digest, problem))

    def all_objects(self) -> None:
        """Check every object."""
        found = list(_object_files(self.layout))
        self.total = sum(size for _, _, size in found)
        for folder, name, _ in found:
            parsed = parse_object(folder, name)
            if parsed:
                self.is_sound(*parsed)
            else:
                self.report(os.path.join(self.layout.objects, folder, name), "", "is no object's name")

    def is_sound(self, digest: str, executable: bool) -> bool:
        """Whether an object is all right; reports it the first time that it is not."""
        key = (digest, executable)
        if key not in self._sound:
            self._sound[key] = self._read_object(digest, executable)
        return self._sound[key]

    def _read_object(self, digest: str, executable: bool) -> bool:
        path = self.layout.object(digest, executable)
        problem, size = read_problem(path, None, digest, executable)
        if problem is None:
            return False  # collected since it was listed; a closure that needs it will say so
        self.checked += 1
        self._done += size
        self.progress(self._done, max(self.total, self._done))
        if problem:
            self.report(path, digest, problem)
        return not problem

    def tree_named(self, name: str) -> None:
        """Check trees/NAME against its closure."""
        path = f"{self.layout.trees}/{name}"
        if not DIGEST.fullmatch(name):
            if not name.endswith((".damaged", ".removed")):
                self.report(path, "", "is no tree's name")
            return
        self.checked += 1
        before = _identity(path)
        found = _TreeCheck(self, path).problems(self._plan(name))
        if before and _identity(path) == before:  # else it was collected while we looked, and maybe made again
            self.damaged += [Damage(where, name, problem) for where, problem in found]

    def _plan(self, digest: str) -> Folder | None:
        path = self.layout.closure(digest)
        try:
            return plan_tree(decode_closure(read_bytes(path), digest, path).entries)
        except (NotFoundError, CorruptError):
            return None

    def closure(self, path: str) -> Closure | None:
        """Check a closure's record, and that its objects are there; None where it is not there or damaged."""
        digest = os.path.basename(path).removesuffix(".json")
        before = _identity(path)
        try:
            closure = decode_closure(read_bytes(path), digest, path)
        except NotFoundError:
            return None
        except CorruptError as error:
            self.report(path, digest, str(error))
            return None
        self.checked += 1
        missing = [entry for entry in _shared_files(closure) if not os.path.lexists(self._object(entry))]
        if before and _identity(path) == before:  # else both were collected while we looked
            for entry in missing:
                self._report_missing(entry)
        return closure

    def _object(self, entry: Entry) -> str:
        return self.layout.object(entry.digest, is_executable(entry))

    def _report_missing(self, entry: Entry) -> None:
        if self._sound.get((entry.digest, is_executable(entry)), True):
            self.report(self._object(entry), entry.digest, f"is missing, {entry.path} needs it")
        self._sound[entry.digest, is_executable(entry)] = False

    def lock(self, path: str) -> None:
        """Check a lock."""
        try:
            unseal(read_bytes(path), path)
        except NotFoundError:
            return
        except CorruptError as error:
            self.report(path, "", str(error))
        self.checked += 1


class _TreeCheck:
    """One tree against its plan."""

    def __init__(self, check: _Check, path: str) -> None:
        self.check = check
        self.path = path
        self.found: list[tuple[str, str]] = []

    def problems(self, plan: Folder | None) -> list[tuple[str, str]]:
        """Absolute path and problem of everything that is not as planned."""
        if plan is None:
            return [(self.path, "has no sound closure to be compared with")]
        try:
            self._folder(os.open(self.path, _OPEN_FOLDER), "", plan)
        except OSError as error:
            self.found.append((self.path, f"cannot be read: {error.strerror}"))
        return self.found

    def _report(self, path: str, problem: str) -> None:
        self.found.append((self.path + path, problem))

    def _folder(self, fd: int, path: str, plan: Folder) -> None:
        """Compare an open folder, which is closed here."""
        try:
            self._attributes(fd, path, plan)
            names = set(os.listdir(fd))
            planned = plan.folders.keys() | plan.leaves.keys()
            for name in sorted(names - planned):
                self._report(f"{path}/{name}", "does not belong there")
            for name in sorted(planned - names):
                self._report(f"{path}/{name}", "is missing")
            self._contents(fd, path, plan, names)
        finally:
            os.close(fd)

    def _contents(self, fd: int, path: str, plan: Folder, names: set[str]) -> None:
        for name, entry in plan.leaves.items():
            if name in names:
                self._leaf(fd, name, f"{path}/{name}", entry)
        for name, folder in plan.folders.items():
            if name in names:
                self._subfolder(fd, name, f"{path}/{name}", folder)

    def _subfolder(self, fd: int, name: str, path: str, plan: Folder) -> None:
        if stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
            self._folder(os.open(name, _OPEN_FOLDER, dir_fd=fd), path, plan)
        else:
            self._report(path, "is not a folder")

    def _attributes(self, fd: int, path: str, plan: Folder) -> None:
        status = os.fstat(fd)
        if (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) != _expected(plan):
            self._report(path, f"mode {stat.S_IMODE(status.st_mode):04o} owner {status.st_uid}:{status.st_gid}")
        if any(name.startswith("trusted.overlay.") for name in os.listxattr(fd)):
            self._report(path, "carries overlay's attributes")

    def _leaf(self, fd: int, name: str, path: str, entry: Entry) -> None:
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if entry.kind == "symlink":
            if not stat.S_ISLNK(status.st_mode) or os.readlink(name, dir_fd=fd) != entry.target:
                self._report(path, f"is not a symbolic link to {entry.target}")
        elif entry.digest == EMPTY or not self._is_object(status, entry):
            self._own_file(fd, name, path, entry)

    def _is_object(self, status: os.stat_result, entry: Entry) -> bool:
        """Whether the file is the object itself, which is then reported by itself where it is damaged."""
        executable = is_executable(entry)
        try:
            same = os.path.samestat(status, os.lstat(self.check.layout.object(entry.digest, executable)))
        except FileNotFoundError:
            return False
        return same and (self.check.is_sound(entry.digest, executable) or True)

    def _own_file(self, fd: int, name: str, path: str, entry: Entry) -> None:
        """A file that is not the object: right only as a copy that was made for want of links, or an empty one."""
        problem, _ = read_problem(name, fd, entry.digest, is_executable(entry))
        if problem:
            self._report(path, problem)


def _identity(path: str) -> tuple[int, int] | None:
    """What tells a file or folder from another that took its name since; None where it is not there."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_ctime_ns


def _expected(plan: Folder) -> tuple[int, int, int]:
    mode, uid, gid = plan.attributes
    # Without root (in tests) folders cannot be given away, so that they are the tester's.
    return (mode, uid or os.geteuid(), gid or os.getegid())


def read_problem(path: str, folder: int | None, digest: str, executable: bool) -> tuple[str | None, int]:
    """What is wrong with a file ("": nothing, None: it is not there) and its bytes."""
    try:
        status = os.stat(path, dir_fd=folder, follow_symlinks=False)
        problem = file_problem(status, executable)
        if problem:
            return problem, 0
        fd = os.open(path, _OPEN_FILE, dir_fd=folder)
    except FileNotFoundError:
        return None, 0
    try:
        return object_problem(fd, digest, executable), status.st_size
    except OSError as error:
        return f"cannot be read: {error.strerror}", 0
    finally:
        os.close(fd)


def _object_files(layout: Layout) -> Iterator[tuple[str, str, int]]:
    """Folder, name and bytes of everything in objects/."""
    for folder in sorted(os.listdir(layout.objects)):
        path = f"{layout.objects}/{folder}"
        if folder.startswith(INTERIM):
            continue
        if not os.path.isdir(path) or os.path.islink(path):
            yield "", folder, 0
            continue
        for entry in os.scandir(path):
            try:
                yield folder, entry.name, entry.stat(follow_symlinks=False).st_size
            except FileNotFoundError:
                pass


def _shared_files(closure: Closure | None) -> list[Entry]:
    """The entries that are objects: every file but the empty ones."""
    entries = closure.entries if closure else ()
    return [entry for entry in entries if entry.kind == "file" and entry.digest != EMPTY]


def _records(folder: str) -> list[str]:
    return [f"{folder}/{name}" for name in sorted(os.listdir(folder)) if not name.startswith(".")]
