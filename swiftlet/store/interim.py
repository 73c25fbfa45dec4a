"""Folders for things half-made. Their maker holds each one's lock, so what a dead maker left is told and removed.

The kernel's flock leaves with the process, also by SIGKILL, and no child process inherits the descriptor. So a folder
that can be locked belongs to nobody.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager

_MAKING = ".making-"


@contextmanager
def making(folder: str) -> Iterator[str]:
    """A new folder in `folder` for the body, to be filled and renamed from; it goes with the body. Raises OSError."""
    path, fd = claim(f"{folder}/{_MAKING}")
    try:
        yield path
    finally:
        remove(path)
        os.close(fd)


def sweep_interim(folder: str) -> None:
    """Remove what dead makers left in a folder, as far as it is there."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    for name in names:
        if name.startswith(_MAKING):
            try:
                remove_dead(f"{folder}/{name}")
            except FileNotFoundError:
                continue


def claim(prefix: str) -> tuple[str, int]:
    """Make a folder and lock it, against a sweep that may take the new one for a dead maker's.

    Returns its path, which begins with `prefix`, and the descriptor that holds the lock. Raises OSError.
    """
    while True:
        path = f"{prefix}{os.getpid()}-{os.urandom(6).hex()}"
        os.mkdir(path, 0o700)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        fcntl.flock(fd, fcntl.LOCK_EX)
        if _still_there(path, fd):
            return path, fd
        os.close(fd)


def _still_there(path: str, fd: int) -> bool:
    try:
        return os.stat(path).st_ino == os.fstat(fd).st_ino
    except FileNotFoundError:
        return False


def remove_dead(path: str) -> bool:
    """Remove a claimed folder unless its maker lives; locked meanwhile, so that nobody moves in.

    Raises FileNotFoundError where it is gone.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not take(fd):
            return False
        remove(path)
    finally:
        os.close(fd)
    return True


def take(lock: int) -> bool:
    """Lock a descriptor; False where somebody else holds it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def remove(path: str) -> None:
    """Remove a file or a whole folder, as far as it is there."""
    try:
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)
    except FileNotFoundError:
        pass
