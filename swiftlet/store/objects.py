"""Files by content: put, find, check. One inode for one content, or two where it is executable as well.

An object is owned by root, 0444 or 0555, without set-id bits or extended attributes, and dated MTIME whatever its
source was: so the same content is the same file on every host, and what a program derives from a file's date
(Python's .pyc, fontconfig's caches) stays valid. Trees and collection are other modules' business.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterable
from typing import NamedTuple

from swiftlet.model.error import CorruptError, NotFoundError
from swiftlet.store import files
from swiftlet.store.files import CHUNK, storing
from swiftlet.store.guard import Guard
from swiftlet.store.layout import PRIVATE, Layout

MTIME = 315619200
"""Date of every object and tree folder: 1980-01-02, UTC. Zip archives hold no date before 1980 in any time zone."""

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
"""SHA-256 of nothing."""

_LARGE = CHUNK
"""Bytes from which a file is copied inside the kernel: btrfs and xfs then share the blocks with the source."""

_NO_RANGE = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM)

_AGAIN = "fetch it anew: `swiftlet store verify` lists what else is damaged"


class Stored(NamedTuple):
    """digest: SHA-256 in hex. size: bytes. reused: the store had it already."""

    digest: str
    size: int
    reused: bool


class Objects:
    """The objects of one store.

    guard: the session that keeps what is put or found. Without one (a reader, a test) a collection that runs at
    the same time may remove an object right after it was put.
    """

    def __init__(self, layout: Layout, guard: Guard | None = None) -> None:
        self.layout = layout
        self.guard = guard
        self._checked: set[tuple[str, bool]] = set()

    def path(self, digest: str, executable: bool = False) -> str:
        """Absolute path of an object, whether or not it is there. Raises InputError unless `digest` is one."""
        return self.layout.object(digest, executable)

    def keep(self, digests: Iterable[str]) -> None:
        """Claim digests for the session, where there is one. Raises FullError."""
        if self.guard is not None:
            self.guard.keep(digests)

    def has(self, digest: str, executable: bool = False) -> bool:
        """Whether the object is there; it stays until the session ends. Its content is not looked at."""
        path = self.path(digest, executable)
        self.keep((digest,))
        return os.path.lexists(path)

    def open(self, digest: str, executable: bool = False) -> int:
        """Descriptor for reading. Raises NotFoundError. Its content is not looked at: see `check`."""
        path = self.path(digest, executable)
        self.keep((digest,))
        with storing(path):
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)

    def put(
        self, source_fd: int, *, offset: int = 0, size: int | None = None, executable: bool = False, expected: str = ""
    ) -> Stored:
        """Store a regular file, or `size` bytes of it from `offset`, such as a member of a tar archive.

        expected: SHA-256 in hex that the content must have. The source's position is neither used nor changed.
        Raises CorruptError (wrong content, or a source that ends too early), FullError, StoreError; then nothing
        of it stays.
        """
        with storing("the source"):
            length = os.fstat(source_fd).st_size - offset if size is None else size
            data = _read_small(source_fd, offset, length)
        if data is not None:
            if size is not None and len(data) != size:
                raise _cut_short(len(data), size)
            return self.put_bytes(data, executable=executable, expected=expected)
        if expected and self._sound(expected, executable):
            with storing("the source"):
                _expect(*files.digest_file(source_fd, offset, length), expected, size)
            return Stored(expected, length, True)
        with storing(self.layout.objects):
            fd = files.unnamed(self.layout.objects, 0o600)
            try:
                digest, copied = _copy(source_fd, fd, offset, length)
                _expect(digest, copied, expected, size)
                return self._keep_file(fd, digest, copied, executable)
            finally:
                os.close(fd)

    def put_bytes(self, data: bytes, *, executable: bool = False, expected: str = "") -> Stored:
        """Store bytes. Raises what `put` raises."""
        digest = hashlib.sha256(data).hexdigest()
        _expect(digest, len(data), expected, None)
        if self._sound(digest, executable):
            return Stored(digest, len(data), True)
        with storing(self.layout.objects):
            fd = files.unnamed(self.layout.objects, 0o600)
            try:
                files.write_all(fd, data)
                return self._keep_file(fd, digest, len(data), executable)
            finally:
                os.close(fd)

    def check(self, digest: str, executable: bool = False) -> None:
        """Read the whole object once in this instance's life. Raises NotFoundError, CorruptError."""
        if (digest, executable) not in self._checked:
            fd = self.open(digest, executable)
            try:
                problem = object_problem(fd, digest, executable)
            finally:
                os.close(fd)
            if problem:
                raise CorruptError(f"{self.path(digest, executable)}: {problem}", _AGAIN)
            self._checked.add((digest, executable))

    def _sound(self, digest: str, executable: bool) -> bool:
        try:
            self.check(digest, executable)
        except (CorruptError, NotFoundError):
            return False
        return True

    def _keep_file(self, fd: int, digest: str, size: int, executable: bool) -> Stored:
        """Name an unnamed file by its digest, unless a sound object has the name; a damaged one is replaced."""
        self.keep((digest,))
        os.fchmod(fd, 0o555 if executable else 0o444)
        os.utime(fd, (MTIME, MTIME))
        path = self.path(digest, executable)
        reused = not self._link(fd, path) and self._sound(digest, executable)
        if not reused and digest_differs(fd, path):
            files.link_over(fd, path, self.layout.objects)
        self._checked.add((digest, executable))
        return Stored(digest, size, reused)

    def _link(self, fd: int, path: str) -> bool:
        """Give the file its name; False where the name is taken."""
        os.makedirs(os.path.dirname(path), PRIVATE, exist_ok=True)
        try:
            files.link(fd, path)
        except FileExistsError:
            return False
        return True


def digest_differs(fd: int, path: str) -> bool:
    """Whether `path` is another file than the open one."""
    try:
        return not os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return True


def _cut_short(length: int, size: int) -> CorruptError:
    return CorruptError(f"the source ends after {length} of {size} bytes", "fetch it again")


def _expect(digest: str, length: int, expected: str, size: int | None) -> None:
    if size is not None and length != size:
        raise _cut_short(length, size)
    if expected and digest != expected:
        raise CorruptError(f"content has SHA-256 {digest} where {expected} was expected", "fetch it again")


def _read_small(source: int, offset: int, length: int) -> bytes | None:
    """A file that is small enough to be held in memory, or None. Shorter than `length` where the source ends."""
    if length >= _LARGE:
        return None
    data = b""
    while len(data) < length and (more := os.pread(source, length - len(data), offset + len(data))):
        data += more
    return data


def _copy(source: int, target: int, offset: int, length: int) -> tuple[str, int]:
    """Copy and hash: the bytes that are hashed are those that the target holds, whoever changes the source."""
    if _copy_range(source, target, offset, length):
        return files.digest_file(target)
    return _copy_bytes(source, target, offset, length)


def _copy_range(source: int, target: int, offset: int, length: int) -> bool:
    """Copy inside the kernel; False, with the target empty, where this pair of files does not allow it."""
    done = 0
    try:
        while done < length:
            step = os.copy_file_range(source, target, length - done, offset + done, done)
            if step == 0:
                break
            done += step
    except OSError as error:
        if error.errno not in _NO_RANGE:
            raise
        os.ftruncate(target, 0)
        return False
    return True


def _copy_bytes(source: int, target: int, offset: int, length: int) -> tuple[str, int]:
    state = hashlib.sha256()
    done = 0
    while done < length:
        data = os.pread(source, min(CHUNK, length - done), offset + done)
        if not data:
            break
        state.update(data)
        files.write_all(target, data)
        done += len(data)
    return state.hexdigest(), done


def object_problem(fd: int, digest: str, executable: bool) -> str:
    """What is wrong with an object's file, or "" when all is well. Reads all of it. Raises OSError."""
    found = os.fstat(fd)
    problem = file_problem(found, executable)
    if problem:
        return problem
    if digest == EMPTY and found.st_nlink != 1:
        return f"an empty file with {found.st_nlink} links"
    if "security.capability" in os.listxattr(fd):
        return "carries capabilities"
    content, _ = files.digest_file(fd)
    return "" if content == digest else f"content has SHA-256 {content}"


def file_problem(found: os.stat_result, executable: bool) -> str:
    """What is wrong with type, owner or mode of an object or of a file in a tree, or ""."""
    mode = 0o555 if executable else 0o444
    if not stat.S_ISREG(found.st_mode):
        return "not a regular file"
    if (found.st_uid, found.st_gid) != (os.geteuid(), os.getegid()):
        return f"belongs to {found.st_uid}:{found.st_gid}"
    if stat.S_IMODE(found.st_mode) != mode:
        return f"mode {stat.S_IMODE(found.st_mode):04o} instead of {mode:04o}"
    return ""
