"""Inserting a component into a running guest (the Reg paper's state Inserting), as steps of a launcher's child.

The component's link tree is attached read-only at a place of its own, and a symbolic link is made for each of
its files that the guest lacks. Nothing that is there is covered or changed, and a failure undoes what was done,
so the guest's environment is as before or complete. (Changing the lower of a mounted overlay is undefined.)
"""

from __future__ import annotations

import os

from swiftlet.guest.stage import Guest, StageError
from swiftlet.linux import mount, namespace, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def insert(guest: Guest) -> NoReturn:
    """Enter the guest's mount namespace, attach the tree at `place`, make the links, or undo all of it."""
    place = guest.bundle["place"]
    syscall.setns(guest.target, namespace.NEWNS)
    os.chdir("/")
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    folder = mount.make_beneath(root, place, directory=True)
    made: list[tuple[int, str]] = []
    syscall.move_mount(guest.volumes[0], folder, "")
    try:
        for path, target in guest.bundle["links"]:
            made.append(_link(root, path, target))
    except BaseException:
        for parent, name in made:
            os.unlink(name, dir_fd=parent)
        syscall.umount(place, mount.MNT_DETACH)
        raise
    guest.mark_ready()
    os._exit(0)


def _link(root: int, path: str, target: str) -> tuple[int, str]:
    """Make one symbolic link in a folder looked up inside the guest; returns where it is."""
    folder, _, name = path.rpartition("/")
    parent = mount.make_beneath(root, folder or "/", directory=True)
    try:
        os.symlink(target, name, dir_fd=parent)
    except FileExistsError:
        raise StageError(f"the guest has a {path} already", "ConflictError", "nothing was inserted") from None
    return parent, name


INSERT = (insert,)
