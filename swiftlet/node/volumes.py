"""Volumes: opening what a guest is to see of the host, and refusing what would let it out.

A source is opened once, without following /proc's magic links, and everything after that goes through the
descriptor: its detached copy of the mounts is what the launcher attaches, whatever happens to the path meanwhile.
Refused are the store, the run folder with the daemon's sockets, and any *writable* volume that holds one of them,
also under another name: what counts is the place in the file system that a path leads to, not the path.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import NamedTuple

from swiftlet.linux import mount, syscall
from swiftlet.model.error import HostError, InputError, NotFoundError
from swiftlet.model.workload import Volume

INSERTED = "/run/swiftlet/inserted"
"""Where the trees of inserted components are attached in a guest."""


class Opened(NamedTuple):
    """A volume ready to be attached. mount: descriptor of a detached mount, the caller's."""

    target: str
    is_folder: bool
    mount: int


class Mounted(NamedTuple):
    """A line of mountinfo. device: "major:minor"; root: path within that file system; point: where it is mounted."""

    device: str
    root: str
    point: str


class Spot(NamedTuple):
    """A place in a file system, whatever paths lead there."""

    device: str
    path: str

    def holds(self, other: Spot) -> bool:
        """Whether `other` is this place or lies below it."""
        return self.device == other.device and (
            other.path == self.path or other.path.startswith(f"{self.path.rstrip('/')}/")
        )


def open_inserted(places: Sequence[str], trees: str) -> list[Opened]:
    """The components that a guest got while it ran, for its next start. trees: the store's folder of trees."""
    opened: list[Opened] = []
    try:
        for place in places:
            opened.append(Opened(place, True, tree_mount(f"{trees}/{place.rpartition('/')[2]}")))
    except BaseException:
        close_volumes(opened)
        raise
    return opened


def tree_mount(path: str) -> int:
    """A detached read-only mount of a tree of the store. Raises NotFoundError, HostError."""
    try:
        folder = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFoundError(f"tree {path} is not in the store", "insert the component again") from None
    try:
        tree = mount.clone_tree(folder, recursive=False)
        flags = mount.ATTR_RDONLY | mount.ATTR_NOSUID | mount.ATTR_NODEV
        try:
            mount.set_mount_attributes(tree, set_=flags)
        except BaseException:
            os.close(tree)
            raise
        return tree
    except OSError as error:
        raise HostError(f"a tree of the store cannot be mounted: {error.strerror}", "swiftlet doctor") from None
    finally:
        os.close(folder)


def open_files(paths: tuple[str, ...], targets: tuple[str, ...]) -> list[Opened]:
    """Detached read-only mounts of single files, to be attached where a machine sees them. Raises HostError."""
    opened: list[Opened] = []
    try:
        for path, target in zip(paths, targets, strict=True):
            opened.append(Opened(target, False, _file_mount(path)))
    except OSError as error:
        for each in opened:
            os.close(each.mount)
        raise HostError(f"a machine's file cannot be mounted: {error}", "swiftlet doctor") from None
    return opened


def _file_mount(path: str) -> int:
    handle = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        tree = mount.clone_tree(handle, recursive=False)
    finally:
        os.close(handle)
    try:
        mount.set_mount_attributes(tree, set_=mount.ATTR_RDONLY | mount.ATTR_NOSUID | mount.ATTR_NODEV)
    except BaseException:
        os.close(tree)
        raise
    return tree


def open_volumes(volumes: Sequence[Volume], forbidden: Sequence[str]) -> list[Opened]:
    """Open all, or none. forbidden: folders that no guest may reach.

    Raises NotFoundError (no such source), InputError (a source that is refused), HostError (no way to mount it).
    """
    if not volumes:
        return []
    with open("/proc/self/mountinfo") as file:
        mounts = parse_mounts(file.read())
    kept = [spot_of(os.path.realpath(path), mounts) for path in forbidden]
    opened: list[Opened] = []
    try:
        for volume in volumes:
            opened.append(_open(volume, mounts, kept))
    except BaseException:
        close_volumes(opened)
        raise
    return opened


def close_volumes(opened: Sequence[Opened]) -> None:
    """Close the descriptors; what was attached meanwhile stays attached."""
    for volume in opened:
        os.close(volume.mount)


def _open(volume: Volume, mounts: list[Mounted], kept: list[Spot]) -> Opened:
    source = _open_source(volume.source)
    try:
        _check(volume, os.readlink(f"/proc/self/fd/{source}"), mounts, kept)
        mode = os.fstat(source).st_mode
        if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode)):
            raise InputError(f"volume {volume.source} is neither a folder nor a file", "devices are not passed through")
        return Opened(volume.target, stat.S_ISDIR(mode), _detached(volume, source))
    finally:
        os.close(source)


def _open_source(path: str) -> int:
    try:
        return syscall.openat2(syscall.AT_FDCWD, path, os.O_PATH, syscall.RESOLVE_NO_MAGICLINKS)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(f"volume source {path} is not there", f"mkdir -p {path}") from None
    except OSError as error:
        raise InputError(f"volume source {path} cannot be opened: {error.strerror}") from None


def _detached(volume: Volume, source: int) -> int:
    try:
        tree = mount.clone_tree(source, recursive=True)
        try:
            flags = mount.ATTR_NOSUID | mount.ATTR_NODEV | (mount.ATTR_RDONLY if volume.read_only else 0)
            mount.set_mount_attributes(tree, set_=flags, recursive=True)
        except BaseException:
            os.close(tree)
            raise
    except OSError as error:
        raise HostError(f"volume {volume.source} cannot be mounted: {error.strerror}") from None
    return tree


def _check(volume: Volume, path: str, mounts: list[Mounted], kept: list[Spot]) -> None:
    """Raises InputError for a volume that shows what no guest may reach."""
    shown = [spot_of(path, mounts), *(_spot(entry) for entry in mounts if _below(entry.point, path))]
    for spot in shown:
        for secret in kept:
            if secret.holds(spot):
                raise InputError(f"volume {volume.source} lies in swiftlet's own folders", "choose another folder")
            if spot.holds(secret) and not volume.read_only:
                text = f"volume {volume.source} would let the guest write swiftlet's own folders"
                raise InputError(text, "add :ro, or choose a folder without them")


def parse_mounts(mountinfo: str) -> list[Mounted]:
    """The text of /proc/PID/mountinfo (proc(5))."""
    found = []
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        if len(fields) > 5:
            found.append(Mounted(fields[2], _plain(fields[3]), _plain(fields[4])))
    return found


def _plain(field: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field


def spot_of(path: str, mounts: list[Mounted]) -> Spot:
    """Where an absolute path without symlinks leads: the mount on top of the longest mount point above it decides."""
    best = Mounted("", "/", "/")
    for entry in mounts:
        if (entry.point == path or _below(path, entry.point)) and len(entry.point) >= len(best.point):
            best = entry
    rest = path[len(best.point.rstrip("/")) :].strip("/")
    return Spot(best.device, os.path.normpath(f"{best.root.rstrip('/')}/{rest}"))


def _spot(entry: Mounted) -> Spot:
    return Spot(entry.device, entry.root)


def _below(path: str, folder: str) -> bool:
    return path != folder and path.startswith(f"{folder.rstrip('/')}/")
