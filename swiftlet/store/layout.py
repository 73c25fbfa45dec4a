"""Where everything lies below an instance's root. Paths only; what the files mean is said where they are written.

::

    ROOT/                        0711  passable for guests with a user namespace, listable for root alone
      objects/ab/cdef...         content by SHA-256, 0444 root:root, mtime MTIME, never empty ones in a tree
      objects/ab/cdef....x       the same content where it is executable, 0555
      trees/DIGEST/              a link tree (overlay lower): hard links to objects; never changed once it is there
      trees/DIGEST.damaged/      a tree that `verify.repair` took out of use while a guest still had it mounted
      trees/DIGEST.removed/      a tree that a collection is deleting
      closures/DIGEST.json       a Closure, sealed (see `files.write_sealed`); tree and closure share the digest
      locks/NAME@VERSION.json    what that template resolved to last, sealed; keeps every digest that it names
      cache/                     anything that can be made again
      tmp/store.lock             held shared while a digest is claimed, exclusively while a batch is removed
      tmp/collect.lock           held exclusively for the length of a collection
      tmp/pins                   digests that starts claimed while a collection ran
      tmp/session-PID-RANDOM/    one for each session, flock'ed while it lives: `notes` and things half-made
      guests/ID/bundle.json      keeps every digest that it names
      names/NAME -> ID
      leases/
      snapshots/
"""

from __future__ import annotations

import os
import re
import stat

from swiftlet.model.error import HostError, InputError
from swiftlet.model.instance import Instance
from swiftlet.store.files import storing

DIGEST = re.compile(r"[0-9a-f]{64}")

_DIGEST_IN_TEXT = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")

PASSABLE = 0o711
PRIVATE = 0o700

_MODES = {
    "objects": PRIVATE,
    "trees": PASSABLE,
    "closures": PRIVATE,
    "locks": PRIVATE,
    "cache": PRIVATE,
    "tmp": PRIVATE,
    "guests": PASSABLE,
    "names": PRIVATE,
    "leases": PRIVATE,
    "snapshots": PRIVATE,
}


class Layout:
    """The folders of one store as absolute paths."""

    def __init__(self, root: str | Instance) -> None:
        self.root = os.path.abspath(root.root if isinstance(root, Instance) else root)
        self.objects = f"{self.root}/objects"
        self.trees = f"{self.root}/trees"
        self.closures = f"{self.root}/closures"
        self.locks = f"{self.root}/locks"
        self.cache = f"{self.root}/cache"
        self.tmp = f"{self.root}/tmp"
        self.guests = f"{self.root}/guests"
        self.names = f"{self.root}/names"
        self.leases = f"{self.root}/leases"
        self.snapshots = f"{self.root}/snapshots"

    def prepare(self) -> None:
        """Make what is missing, with the right modes.

        Raises HostError when a folder is not ours (another user's, a symbolic link, a file), FullError.
        """
        with storing(self.root):
            os.makedirs(os.path.dirname(self.root), exist_ok=True)
            _own(self.root, PASSABLE)
            for name, mode in _MODES.items():
                _own(f"{self.root}/{name}", mode)

    def object(self, digest: str, executable: bool) -> str:
        """Absolute path of an object, whether or not it is there."""
        return f"{self.objects}/{object_name(digest, executable)}"

    def tree(self, digest: str) -> str:
        """Absolute path of a tree, whether or not it is there. Raises InputError unless `digest` is one."""
        return f"{self.trees}/{checked_digest(digest)}"

    def closure(self, digest: str) -> str:
        """Absolute path of a closure's record. Raises InputError unless `digest` is one."""
        return f"{self.closures}/{checked_digest(digest)}.json"


def _own(path: str, mode: int) -> None:
    """Make a folder, or see that the one there is a folder of ours, and set its mode."""
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        pass
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise HostError(f"{path} is not a folder of uid {os.geteuid()}", "move it away or choose another SWIFTLET_ROOT")
    if stat.S_IMODE(found.st_mode) != mode:
        os.chmod(path, mode)


def checked_digest(digest: str) -> str:
    """`digest` itself. Raises InputError unless it is 64 lower-case hex digits, so that it may be part of a path."""
    if not DIGEST.fullmatch(digest):
        raise InputError(f"not a SHA-256 digest: {digest!r}")
    return digest


def object_name(digest: str, executable: bool) -> str:
    """An object's path below `objects/`. Raises InputError unless `digest` is one."""
    checked_digest(digest)
    return f"{digest[:2]}/{digest[2:]}.x" if executable else f"{digest[:2]}/{digest[2:]}"


def parse_object(folder: str, name: str) -> tuple[str, bool] | None:
    """The digest and executability that `objects/FOLDER/NAME` stands for; None where it is no object's name."""
    digest = folder + name.removesuffix(".x")
    return (digest, name.endswith(".x")) if len(folder) == 2 and DIGEST.fullmatch(digest) else None


def digests_in(data: bytes) -> set[str]:
    """Every digest that a document names, whatever its form: what a lock or a bundle names is kept."""
    return {found.decode() for found in _DIGEST_IN_TEXT.findall(data)}
