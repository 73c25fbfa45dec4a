"""Mounts: safe look-ups below a root, detached trees, overlays, and the pruning of a mount table.

Standard library and `syscall` only. Flags are Linux's.
"""

from __future__ import annotations

import os

from swiftlet.linux import syscall
from swiftlet.linux.syscall import (
    AT_FDCWD,
    AT_RECURSIVE,
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
)

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE, MS_SLAVE, MS_RELATIME = 4096, 16384, 1 << 18, 1 << 19, 1 << 21
MNT_DETACH = 2

ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV, ATTR_NOEXEC, ATTR_IDMAP = 1, 2, 4, 8, 0x100000

_PAGE = 4096


def clone_tree(fd: int, *, recursive: bool = True) -> int:
    """A detached copy of the mounts at and (recursively) below the file that `fd` names; private, of no namespace."""
    copy = syscall.open_tree(fd, "", 1 | syscall.AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0))
    syscall.mount_setattr(copy, "", flags=AT_RECURSIVE, propagation=MS_PRIVATE)
    return copy


def set_mount_attributes(fd: int, *, set_: int = 0, clear: int = 0, recursive: bool = True) -> None:
    """Set and clear ATTR_ flags on a (detached) mount, or on all of its tree."""
    syscall.mount_setattr(fd, "", flags=AT_RECURSIVE if recursive else 0, set_=set_, clear=clear)


def open_beneath(root: int, path: str, flags: int = os.O_PATH) -> int:
    """Open `path` as a process chrooted at `root` would, never leaving it and following no /proc magic link."""
    return syscall.openat2(root, path, flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)


def make_beneath(root: int, path: str, *, directory: bool) -> int:
    """Open `path` below `root` (O_PATH), making what is missing: folders, then a folder or an empty file.

    Symbolic links inside the root are followed inside the root; nothing outside is ever touched.
    Raises OSError when a part is neither folder nor link.
    """
    try:
        return open_beneath(root, path)
    except FileNotFoundError:
        pass
    parts = [part for part in path.split("/") if part not in ("", ".")]
    current = os.dup(root)
    for index, part in enumerate(parts):
        is_folder = directory or index < len(parts) - 1
        current = _step(root, current, "/".join(parts[: index + 1]), part, is_folder)
    return current


def _step(root: int, parent: int, prefix: str, name: str, directory: bool) -> int:
    """Open `prefix` below `root`, making its last part `name` in `parent` if it is missing; closes `parent`."""
    try:
        return open_beneath(root, prefix)
    except FileNotFoundError:
        if directory:
            os.mkdir(name, 0o755, dir_fd=parent)
        else:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=parent))
        return syscall.openat2(parent, name, os.O_PATH, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
    finally:
        os.close(parent)


def overlay(lowers: list[str], upper: str, work: str, target: str, *, volatile: bool = False) -> None:
    """Mount an overlay at `target`, lowers topmost first.

    volatile: what is written need not reach the disk, so fsync does nothing and unmounting, which the last
    process of a guest has to wait for, does not sync the whole file system below (Linux 5.10).

    By mount(2) where the options fit a page, which is two system calls fewer than the new interface; by the
    new interface (Linux 6.5: one `lowerdir+` each) where they do not.
    """
    options = f"lowerdir={':'.join(lowers)},upperdir={upper},workdir={work}{',volatile' if volatile else ''}"
    if len(options) < _PAGE - 1:
        syscall.mount("overlay", target, "overlay", 0, options)
        return
    context = syscall.fsopen("overlay")
    try:
        for lower in lowers:
            syscall.fsconfig(context, "lowerdir+", lower)
        syscall.fsconfig(context, "upperdir", upper)
        syscall.fsconfig(context, "workdir", work)
        if volatile:
            syscall.fsconfig(context, "volatile", "")
        detached = syscall.fsmount(context, about=target)
    finally:
        os.close(context)
    syscall.move_mount(detached, AT_FDCWD, target)
    os.close(detached)


def mount_points(mountinfo: str) -> list[str]:
    """The mount points that the text of /proc/PID/mountinfo lists, in its order."""
    return [_unescape(line.split(" ", 5)[4]) for line in mountinfo.splitlines() if line]


def _unescape(field: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field


def superfluous(points: list[str], needed: list[str]) -> list[str]:
    """Which mount points can go, deepest first, when only `needed` paths must stay reachable.

    A mount stays when it is `/`, holds a needed path, or lies below one.
    """

    def stays(point: str) -> bool:
        return point == "/" or any(_within(path, point) or _within(point, path) for path in needed)

    return sorted((point for point in points if not stays(point)), key=len, reverse=True)


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def private_namespace(needed: list[str]) -> None:
    """Give this process a mount namespace of its own that holds little more than `needed`.

    Every guest's namespace starts as a copy of it, and the copy costs time for each mount.
    """
    clone_newns = 0x20000
    syscall.unshare(clone_newns)
    syscall.mount("none", "/", "", MS_REC | MS_PRIVATE)
    with open("/proc/self/mountinfo") as file:
        points = mount_points(file.read())
    for point in superfluous(points, needed):
        try:
            syscall.umount(point, MNT_DETACH)
        except OSError:
            continue  # gone with its parent, or held: it only costs time
