"""Files of the cache: they appear whole or not at all. Anything here can be made again, so nothing is synced."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator

from swiftlet.model.error import FullError, StoreError

_FULL_HINT = "free some space, or run `swiftlet store gc`"


def cache_error(error: OSError, path: str) -> StoreError:
    """A file system's error on a path of the cache, as one of ours."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FullError(f"no space left in {path}", _FULL_HINT)
    return StoreError(f"cannot write {path}: {error.strerror or error}")


def full_disk(complaint: str, path: str) -> FullError | None:
    """The error that a child process's complaint stands for when what it ran out of is space, else None."""
    if "No space left on device" in complaint or "Disk quota exceeded" in complaint:
        return FullError(f"no space left in {path}", _FULL_HINT)
    return None


def make_folder(path: str, mode: int = 0o755) -> str:
    """Make a folder of the cache and its parents; gives the path back."""
    try:
        os.makedirs(path, mode, exist_ok=True)
    except OSError as error:
        raise cache_error(error, path) from None
    return path


def publish(path: str, data: bytes) -> None:
    """Put a file in place whole, over an older one where there is one. Raises FullError or StoreError."""
    folder = make_folder(os.path.dirname(path))
    temporary = ""
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=".new-", dir=folder)
        with open(descriptor, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644)
        os.rename(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise cache_error(error, path) from None


def scratch(folder: str) -> int:
    """A descriptor of a new file without a name on the cache's file system."""
    make_folder(folder)
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT):
            raise cache_error(error, folder) from None
    descriptor, name = tempfile.mkstemp(dir=folder)
    os.unlink(name)
    return descriptor


@contextlib.contextmanager
def locked(path: str) -> Iterator[None]:
    """Hold a lock file; the lock leaves with the process, however it ends."""
    make_folder(os.path.dirname(path))
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise cache_error(error, path) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
