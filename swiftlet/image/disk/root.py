"""The one file system of a disk image: the machine's own root with a workload's trees in it, and its orders.

On a host of ours each tree is an image of its own, which guests share. Elsewhere there is nobody to share with, and
nobody who says under which names disks appear: so everything is in one, and the overlay is put together inside.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Sequence

ORDERS = "orders"
"""Where swiftlet-init looks for what it is to do."""

_LINKING_FAILS = (errno.EMLINK, errno.EXDEV)


def make_root(folder: str, machine: str, lowers: Sequence[str], orders: str) -> None:
    """Make the tree at a new path `folder`. machine: the tree of the machine's own root. lowers: topmost first.

    Files are links to those of the store. Raises OSError.
    """
    _link_tree(machine, folder)
    for number, lower in enumerate(lowers):
        os.rmdir(f"{folder}/lower/{number}")
        _link_tree(lower, f"{folder}/lower/{number}")
    with open(f"{folder}/{ORDERS}", "w", encoding="utf-8") as file:
        file.write(orders)
    os.chmod(f"{folder}/{ORDERS}", 0o400)  # a workload's variables may be secrets


def _link_tree(source: str, target: str) -> None:
    """A tree with the same files, and folders and links of its own."""
    found = os.lstat(source)
    os.mkdir(target)
    with os.scandir(source) as entries:
        for entry in sorted(entries, key=lambda each: each.name):
            path = f"{target}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                _link_tree(entry.path, path)
            else:
                _link(entry.path, path)
    os.chown(target, found.st_uid, found.st_gid)
    os.chmod(target, stat.S_IMODE(found.st_mode))


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _LINKING_FAILS:
            raise
        shutil.copy2(source, target, follow_symlinks=False)
        found = os.lstat(source)
        os.chown(target, found.st_uid, found.st_gid, follow_symlinks=False)
