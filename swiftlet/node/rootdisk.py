"""The disk of a machine: a file in its guest's folder that holds what the guest writes to its root, until `rm`.

It is sparse, so it takes what was written, and what the guest removes it gives back. This host makes its file system
while it is empty and never reads it again: what is in it is the guest's.
"""

from __future__ import annotations

import os
import shutil
import subprocess

from swiftlet.model.error import FullError, HostError, InputError, StoreError
from swiftlet.node.names import storage_error

FILE = "disk"

_FEATURES = "^resize_inode"
"""Nobody makes it larger, and the room for that would be a percent of it."""


def check(folder: str, size: int) -> None:
    """Raise HostError when this host cannot make one, InputError when it could never hold so much.

    folder: where guests' folders are.
    """
    _program()
    found = os.statvfs(folder)
    whole = found.f_blocks * found.f_frsize
    if size > whole:
        told = f"{size >> 20} MiB are more than the {whole >> 20} MiB of the file system that it is to lie on"
        raise InputError(f"$.resources.disk: {told}", "give it less")


def open_disk(folder: str, size: int) -> int:
    """The disk of a guest, made when it is not there: open for reading and writing, the caller's to close.

    Raises HostError (no mkfs.ext4), FullError, StoreError.
    """
    path = f"{folder}/{FILE}"
    try:
        if not os.path.exists(path):
            _make(path, size)
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise storage_error(error, path) from None


def _make(path: str, size: int) -> None:
    program, interim = _program(), f"{path}.new"
    with open(interim, "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.truncate(size)
    # Tables that were never written are zero already, so none is; the guest is told the same (`guest.orders`).
    options = ("-q", "-F", "-m", "0", "-O", _FEATURES, "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard")
    done = subprocess.run(
        [program, *options, interim], capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL
    )
    if done.returncode:
        os.unlink(interim)
        if "No space left" in done.stderr:
            raise FullError(f"no room for the disk {path}", "free some space, then run this again")
        said = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise StoreError(f"mkfs.ext4 failed for {path}: {said[0]}", "swiftlet doctor")
    os.rename(interim, path)


def _program() -> str:
    """Where mkfs.ext4 is: administrators' folders are not on everybody's PATH."""
    found = shutil.which("mkfs.ext4") or shutil.which("mkfs.ext4", path="/usr/sbin:/sbin")
    if found is None:
        raise HostError("no mkfs.ext4 here to make the disk of a machine", "apt-get install e2fsprogs")
    return found
