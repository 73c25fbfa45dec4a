"""Files that appear whole or not at all, and OSErrors turned into errors that name the thing.

Used by everyone who keeps state on disk: journals, closures, locks, leases. A file is written without a name
(O_TMPFILE) and linked into place; only where it replaces another is there a named moment in between.
What survives a power failure is left to the file system: nothing here calls fsync, which would cost a start
more than the rest of it.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from swiftlet.model.error import CorruptError, FullError, HostError, NotFoundError, StoreError

CHUNK = 1 << 20
"""Bytes read at a time; beyond this a larger buffer no longer helps SHA-256."""

INTERIM = ".new-"
"""How the name of a file begins that is about to replace another."""

_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR)


@contextmanager
def storing(path: str) -> Iterator[None]:
    """Turn an OSError of the body into FullError, NotFoundError, HostError or StoreError that names `path`."""
    try:
        yield
    except OSError as error:
        raise store_error(error, path) from error


def store_error(error: OSError, path: str) -> StoreError | NotFoundError | HostError:
    """The store's error for a failed system call on `path`."""
    if error.errno in _FULL:
        return FullError(f"no space left on the disk of {path}", "free some, or try `swiftlet store gc`")
    if error.errno == errno.ENOENT:
        return NotFoundError(f"{error.filename or path} is not there")
    if error.errno in (errno.EACCES, errno.EPERM) and os.geteuid() != 0:
        return HostError(f"no permission for {path}", "run as root")
    return StoreError(f"{path}: {error.strerror}")


def unnamed(folder: str, mode: int) -> int:
    """Descriptor of a new file without a name on `folder`'s file system, open for reading and writing.

    Raises OSError, and HostError where the file system has no O_TMPFILE.
    """
    try:
        fd = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, mode)
    except OSError as error:
        if error.errno not in _NO_TMPFILE:
            raise
        hint = "choose a SWIFTLET_ROOT on ext4, xfs, btrfs or tmpfs"
        raise HostError(f"the file system of {folder} cannot make unnamed files (O_TMPFILE)", hint) from error
    return fd


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write everything, whatever the kernel takes at a time. Raises OSError."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def link(fd: int, path: str) -> None:
    """Give an unnamed file its absolute name. Raises FileExistsError and other OSErrors."""
    # Told of a folder descriptor (which an absolute path makes the kernel ignore) Python calls
    # linkat(AT_SYMLINK_FOLLOW); else link(), which would link the symbolic link in /proc itself.
    os.link(f"/proc/self/fd/{fd}", path, dst_dir_fd=-1, follow_symlinks=True)


def link_over(fd: int, path: str, staging: str) -> None:
    """Give an unnamed file the name `path`, in one step also where another file has it.

    staging: folder for the name in between, on the same file system. Raises OSError.
    """
    interim = f"{staging}/{INTERIM}{os.getpid()}-{os.urandom(8).hex()}"
    link(fd, interim)
    try:
        os.rename(interim, path)
    except OSError:
        os.unlink(interim)
        raise


def write_atomic(path: str, data: bytes, mode: int = 0o600, staging: str = "") -> None:
    """Make `path` hold `data`; whoever looks sees the old file or the new one, never a part.

    staging: folder on the same file system for the moment in which a file that replaces another has a name of
    its own (`.new-...`); `path`'s own by default. Raises FullError (the old file stays), StoreError,
    NotFoundError where the folder is missing.
    """
    folder = os.path.dirname(path)
    with storing(path):
        fd = unnamed(staging or folder, mode)
        try:
            os.fchmod(fd, mode)
            write_all(fd, data)
            _appear(fd, path, staging or folder)
        finally:
            os.close(fd)


def _appear(fd: int, path: str, staging: str) -> None:
    try:
        link(fd, path)
    except FileExistsError:
        link_over(fd, path, staging)


def read_bytes(path: str) -> bytes:
    """A whole file. Raises NotFoundError, StoreError."""
    with storing(path), open(path, "rb") as file:
        return file.read()


def write_json(path: str, value: Any, mode: int = 0o600) -> None:
    """`write_atomic` of a value that msgspec can encode, on one line."""
    write_atomic(path, msgspec.json.encode(value) + b"\n", mode)


def read_json(path: str) -> Any:
    """What a JSON file holds. Raises NotFoundError, CorruptError where it is no JSON."""
    try:
        return msgspec.json.decode(read_bytes(path))
    except (msgspec.DecodeError, RecursionError) as error:
        raise CorruptError(f"{path} is not JSON: {error}") from error


# A sealed file is {"sha256":"<digest of what follows>","data":<JSON>}: ordinary JSON to every other program, and
# no byte of it can change unnoticed.
_HEAD = b'{"sha256":"'
_MIDDLE = b'","data":'
_DATA = len(_HEAD) + 64 + len(_MIDDLE)


def seal(value: Any) -> bytes:
    """JSON that carries its own SHA-256."""
    data = msgspec.json.encode(value)
    return b"".join((_HEAD, hashlib.sha256(data).hexdigest().encode(), _MIDDLE, data, b"}\n"))


def unseal(document: bytes, path: str) -> bytes:
    """The JSON inside a sealed document. Raises CorruptError unless every byte is as it was written."""
    data = document[_DATA:-2]
    digest = hashlib.sha256(data).hexdigest().encode()
    if document != b"".join((_HEAD, digest, _MIDDLE, data, b"}\n")):
        raise CorruptError(f"{path} is damaged", "`swiftlet store verify` lists what else is")
    return data


def digest_file(fd: int, offset: int = 0, size: int | None = None) -> tuple[str, int]:
    """SHA-256 (hex) and length of a file, or of `size` bytes of it from `offset`. Raises OSError."""
    state = hashlib.sha256()
    position = offset
    end = None if size is None else offset + size
    while end is None or position < end:
        data = os.pread(fd, CHUNK if end is None else min(CHUNK, end - position), position)
        if not data:
            break
        state.update(data)
        position += len(data)
    return state.hexdigest(), position - offset
