"""What lies on top of a stack of closures and belongs to none of them. Pure: closures in, entries and contents out.

Accounts, the loader's cache, mount points, the merged-/usr links; and every folder that a closure declared with an
owner or a mode of its own, since in an overlay the topmost layer's folder decides, also where that layer has the
folder only for want of a parent.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from swiftlet.image import accounts, ldcache
from swiftlet.model.closure import Closure, Entry, canonical_path

COMPOSITION = "composition"
"""The template name of the closure that `compose`'s result becomes."""

_MOUNT_POINTS = {
    "/dev": 0o755,
    "/etc": 0o755,
    "/home": 0o755,
    "/mnt": 0o755,
    "/proc": 0o755,
    "/root": 0o700,
    "/run": 0o755,
    "/sys": 0o755,
    "/tmp": 0o1777,
    "/var/tmp": 0o1777,
}

_MERGED = ("bin", "sbin", "lib", "lib64")
_MERGED_IF_USED = ("lib32", "libx32")

_LINKS = {"/etc/mtab": "../proc/self/mounts", "/var/run": "../run"}

_NSSWITCH = """\
passwd: files
group: files
shadow: files
hosts: files dns
networks: files
protocols: files
services: files
ethers: files
rpc: files
"""

_MAX_LINKS = 40
"""Symbolic links that the kernel follows in one path (include/linux/namei.h, MAXSYMLINKS)."""


class Made(NamedTuple):
    """An entry of the composition; content is a file's bytes."""

    entry: Entry
    content: bytes = b""


def compose(
    closures: Sequence[Closure],
    *,
    library_directories: Iterable[str] = (),
    sonames: Mapping[str, str] | None = None,
) -> list[Made]:
    """The composition of a stack, topmost closure first, sorted by path.

    library_directories: those that the stack's ld.so.conf files name, before the usual ones. sonames: path -> DT_SONAME
    where it is known. Raises InputError for a user that cannot be.
    """
    stack = merge(closures)
    made: dict[str, Made] = {}
    for part in (_folders(closures, stack), _links(stack), _files(closures, stack)):
        for item in part:
            made.setdefault(item.entry.path, item)
    cache = _loader_cache(stack, library_directories, sonames or {})
    if cache:
        made[cache.entry.path] = cache
    return [made[path] for path in sorted(made)]


def merge(closures: Sequence[Closure]) -> dict[str, Entry]:
    """What a guest sees of the closures alone: path -> the first entry of that path that nothing hides.

    A file or a link of an upper closure hides whatever lower ones have at and below its path.
    """
    visible: dict[str, Entry] = {}
    folders: set[str] = {"/"}
    for closure in closures:
        added = [entry for entry in closure.entries if _is_visible(entry, visible, folders)]
        for entry in added:
            visible.setdefault(entry.path, entry)
        folders.update(_folders_of(added))
    return visible


def _folders_of(entries: Iterable[Entry]) -> set[str]:
    """Every folder that these entries are or lie in."""
    found: set[str] = set()
    for entry in entries:
        path = entry.path if entry.kind == "directory" else posixpath.dirname(entry.path)
        while path not in found and path != "/":
            found.add(path)
            path = posixpath.dirname(path)
    return found


def _is_visible(entry: Entry, visible: Mapping[str, Entry], folders: set[str]) -> bool:
    if entry.path in visible or (entry.kind != "directory" and entry.path in folders):
        return False
    parent = posixpath.dirname(entry.path)
    while parent not in folders:
        found = visible.get(parent)
        if found is not None and found.kind != "directory":
            return False
        parent = posixpath.dirname(parent)
    return True


def resolve(stack: Mapping[str, Entry], path: str) -> Entry | None:
    """The file or folder that a path leads to through the stack's symbolic links, or None."""
    for _ in range(_MAX_LINKS):
        path, followed = _follow_first(stack, canonical_path(path))
        if not followed:
            return stack.get(path)
    return None


def _follow_first(stack: Mapping[str, Entry], path: str) -> tuple[str, bool]:
    """Replace the first symbolic link in a path by its target; whether there was one."""
    names = path.split("/")
    for count in range(2, len(names) + 1):
        entry = stack.get("/".join(names[:count]))
        if entry is not None and entry.kind == "symlink":
            target = posixpath.join(posixpath.dirname(entry.path), entry.target, *names[count:])
            return "/" + posixpath.normpath(target).lstrip("/"), True
    return path, False


def _directory(path: str, mode: int, uid: int = 0, gid: int = 0) -> Made:
    return Made(Entry(path, "directory", mode, uid=uid, gid=gid, source="generated"))


def _symlink(path: str, target: str) -> Made:
    return Made(Entry(path, "symlink", 0o777, target=target, source="generated"))


def _file(path: str, content: bytes) -> Made:
    digest = hashlib.sha256(content).hexdigest()
    return Made(Entry(path, "file", 0o444, digest, len(content), source="generated"), content)


def _folders(closures: Sequence[Closure], stack: Mapping[str, Entry]) -> list[Made]:
    """Declared folders that are not as an implicit one would be, then mount points that nobody declared."""
    declared = [entry for entry in stack.values() if entry.kind == "directory"]
    contested = {entry.path for closure in closures for entry in closure.entries if _is_special(entry)}
    wanted = [entry for entry in declared if entry.path in contested]
    known = {entry.path for entry in declared}
    missing = [path for path in _MOUNT_POINTS if path not in known and not _leads_elsewhere(stack, path)]
    return [_directory(entry.path, entry.mode, entry.uid, entry.gid) for entry in wanted] + [
        _directory(path, _MOUNT_POINTS[path]) for path in missing
    ]


def _is_special(entry: Entry) -> bool:
    return entry.kind == "directory" and (entry.mode, entry.uid, entry.gid) != (0o755, 0, 0)


def _leads_elsewhere(stack: Mapping[str, Entry], path: str) -> bool:
    """Whether a closure has a file or a link at the path or above it."""
    while path != "/":
        found = stack.get(path)
        if found is not None and found.kind != "directory":
            return True
        path = posixpath.dirname(path)
    return False


def _links(stack: Mapping[str, Entry]) -> list[Made]:
    used = {path.split("/")[2] for path in stack if path.startswith("/usr/") and path.count("/") > 2}
    merged = [*_MERGED, *(name for name in _MERGED_IF_USED if name in used)]
    taken = {*stack, *_folders_of(stack.values())}
    others = {path: target for path, target in _LINKS.items() if path not in taken and not _blocked(stack, path)}
    return [_symlink(f"/{name}", f"usr/{name}") for name in merged] + [_symlink(*item) for item in others.items()]


def _blocked(stack: Mapping[str, Entry], path: str) -> bool:
    return _leads_elsewhere(stack, posixpath.dirname(path))


def _files(closures: Sequence[Closure], stack: Mapping[str, Entry]) -> list[Made]:
    users: dict[str, int] = {}
    for closure in closures:
        for name, uid in closure.users.items():
            users.setdefault(name, uid)
    contents = {
        "/etc/passwd": accounts.passwd(users, _homes(users, stack), _shell(stack)),
        "/etc/group": accounts.group(users),
        "/etc/nsswitch.conf": _NSSWITCH,
    }
    # A template's own accounts file stands where no template asks for accounts.
    replaced = ("/etc/passwd", "/etc/group") if users else ()
    wanted = {path: text for path, text in contents.items() if path in replaced or path not in stack}
    return [_file(path, text.encode()) for path, text in wanted.items() if not _blocked(stack, path)]


def _shell(stack: Mapping[str, Entry]) -> str:
    return "/bin/bash" if "/usr/bin/bash" in stack else "/bin/sh"


def _homes(users: Mapping[str, int], stack: Mapping[str, Entry]) -> dict[int, str]:
    """The folder that each user owns: /var/lib/NAME where it is his, else the first."""
    owned: dict[int, list[str]] = {}
    for entry in stack.values():
        if entry.kind == "directory" and entry.uid:
            owned.setdefault(entry.uid, []).append(entry.path)
    homes = {}
    for name, uid in users.items():
        if uid in owned:
            homes[uid] = min(owned[uid], key=lambda path: (path != f"/var/lib/{name}", path))
    return homes


def _loader_cache(stack: Mapping[str, Entry], directories: Iterable[str], sonames: Mapping[str, str]) -> Made | None:
    """/etc/ld.so.cache, unless the stack has no shared libraries."""
    if _blocked(stack, "/etc/ld.so.cache"):
        return None
    files = {}
    for path, entry in stack.items():
        if entry.kind != "directory" and ldcache.is_library_name(posixpath.basename(path)):
            found = resolve(stack, path)
            if found is not None and found.kind == "file":
                files[path] = found.path
    searched = [*map(canonical_path, directories), *ldcache.LIBRARY_DIRECTORIES]
    libraries = ldcache.find_libraries(files, searched, sonames)
    return _file("/etc/ld.so.cache", ldcache.render(libraries)) if libraries else None
