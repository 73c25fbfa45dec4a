"""Copies of volumes for trials of kernels: with owners and modes, and without going through a link on either side.

What a volume holds may be a guest's doing, also while it is copied. So everything goes through descriptors of folders:
a link is copied as it is, and nothing is read or written through one, whoever has put it there.
"""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack

from swiftlet.linux import syscall
from swiftlet.model.workload import Volume

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 24


def copy_volume(volume: Volume, root: str) -> None:
    """Copy a volume to its target below the folder `root`, over what earlier ones have put there.

    Raises OSError, also for what is neither a folder, a file nor a link, and where a link is in the way.
    """
    *parents, name = os.path.normpath(volume.target).strip("/").split("/")
    with ExitStack() as stack:
        flags = os.O_RDONLY | os.O_NONBLOCK
        source = syscall.openat2(syscall.AT_FDCWD, volume.source, flags, syscall.RESOLVE_NO_MAGICLINKS)
        stack.callback(os.close, source)
        folder = os.open(root, _FOLDER)
        stack.callback(os.close, folder)
        for parent in parents:
            folder = _parent(folder, parent)
            stack.callback(os.close, folder)
        _copy(source, folder, name)


def _parent(folder: int, name: str) -> int:
    """A folder on the way to a target, made where it is missing."""
    if _kind(folder, name):
        return os.open(name, _FOLDER, dir_fd=folder)
    os.mkdir(name, 0o700, dir_fd=folder)
    made = os.open(name, _FOLDER, dir_fd=folder)
    os.fchmod(made, 0o755)
    return made


def _kind(folder: int, name: str) -> int:
    """What an earlier volume has put there (S_IFMT), 0 for nothing. Raises OSError for a link."""
    try:
        kind = stat.S_IFMT(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return 0
    if kind == stat.S_IFLNK:
        raise OSError(f"another volume has a link at {name}, and nothing is copied through one")
    return kind


def _copy(source: int, folder: int, name: str) -> None:
    """Copy what is open as `source` to a name in a folder."""
    found = os.fstat(source)
    if stat.S_ISDIR(found.st_mode):
        target = _parent(folder, name)
        content = _copy_entries
    else:
        _refuse_special(found.st_mode, name)
        if stat.S_ISREG(_kind(folder, name)):
            os.unlink(name, dir_fd=folder)
        target = os.open(name, _NEW_FILE, 0o600, dir_fd=folder)
        content = _copy_bytes
    try:
        content(source, target)
        os.fchown(target, found.st_uid, found.st_gid)
        os.fchmod(target, stat.S_IMODE(found.st_mode))  # last: a change of the owner takes set-user-ID away
    finally:
        os.close(target)


def _copy_entries(source: int, target: int) -> None:
    for name in os.listdir(source):
        found = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode):
            _kind(target, name)
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            os.chown(name, found.st_uid, found.st_gid, dir_fd=target, follow_symlinks=False)
            continue
        _refuse_special(found.st_mode, name)  # before it is opened, which may do something
        entry = os.open(name, _FILE, dir_fd=source)
        try:
            _copy(entry, target, name)
        finally:
            os.close(entry)


def _copy_bytes(source: int, target: int) -> None:
    while os.sendfile(target, source, None, _CHUNK):
        pass


def _refuse_special(mode: int, name: str) -> None:
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise OSError(f"{name} is neither a folder, a file nor a link")
