"""A Supply of this host's own files, for `host:/path` and for templates that name no package.

Only what was asked for becomes visible: a path that the template lists, and what such a file needs. Paths are
followed as this host sees them and appear in the guest in their canonical spelling; a library from a folder
that only this host's ld.so.conf knows gets a link in a folder that every loader searches.
"""

from __future__ import annotations

import glob
import os
import posixpath
import stat
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from swiftlet.model.closure import canonical_path
from swiftlet.model.error import ResolveError
from swiftlet.model.template import MAX_CLOSURE_BYTES
from swiftlet.resolve.archive import Member, file_member
from swiftlet.resolve.policy import LIBRARY_FOLDERS
from swiftlet.resolve.walk import MAX_FILES, MAX_LINKS, Found, Want

HOST = "host"
"""The package that all of this host's files count as."""

CONFIGURATION = "/etc/ld.so.conf"


_NO_FILES = ("/dev/", "/proc/", "/sys/")


class Stamp(msgspec.Struct, frozen=True):
    """What tells that a host's file is what it was: enough to notice an upgrade without reading the file."""

    path: str
    inode: int
    size: int
    mtime_ns: int


def stamp(path: str) -> Stamp | None:
    """The stamp of a path (of a link itself, not of its target); None where there is nothing."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return Stamp(path, found.st_ino, found.st_size, found.st_mtime_ns)


class HostFiles:
    """The files of this host that have been asked for. Close it, or use it as a context manager."""

    def __init__(self) -> None:
        self.stamps: dict[str, Stamp] = {}
        self._paths: dict[str, Found] = {}
        self._physical: dict[str, str] = {}
        self._descriptor = -1
        self._size = 0
        self._tried: set[tuple[str, str, str]] = set()
        self._folders: list[str] = []

    def __enter__(self) -> HostFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def open(self, path: str) -> bool:
        """Make a file, or a folder and all below it, visible with the links on its way; False where it is not there."""
        physical = self._follow(path) or self._follow(_unmerged(path))
        if physical is None or physical.startswith(_NO_FILES):
            return False
        if os.path.isdir(physical):
            for folder, folders, files in os.walk(physical, onerror=_refuse):
                for name in (*files, *(name for name in folders if os.path.islink(f"{folder}/{name}"))):
                    self._register(f"{folder}/{name}")
        else:
            self._register(physical)
        return True

    def below(self, path: str) -> Iterator[Found]:
        """What is visible at a path or below it."""
        final = self._final(canonical_path(path))
        for known, found in list(self._paths.items()):
            if known == final or known.startswith(f"{final}/"):
                yield found

    def content(self, found: Found) -> tuple[int, int]:
        """A descriptor and the offset in it where a file's content starts; valid until the next call."""
        self._close()
        path = self._physical[found.member.path]
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise ResolveError(f"cannot read {path}: {error.strerror}") from None
        return self._descriptor, 0

    def find(self, path: str) -> Found | None:
        """See Supply."""
        return self._paths.get(path)

    def by_soname(self, soname: str) -> Found | None:
        """See Supply: this host's files have no package, so nothing is known of their own way of loading."""
        return None

    def seek(self, wants: Sequence[Want]) -> bool:
        """See Supply: look for what a file of this host needs."""
        before = len(self._paths)
        for want in wants:
            key = (want.kind, want.name, want.by)
            if want.package == HOST and key not in self._tried:
                self._tried.add(key)
                self._look(want)
        return len(self._paths) > before

    def companions(self, found: Found) -> Iterable[str]:
        """See Supply: not known on a host."""
        return ()

    def advice(self, want: Want) -> str:
        """See Supply."""
        return "install it on this host, or take the program from a package" if want.package == HOST else ""

    def _look(self, want: Want) -> None:
        if want.kind == "path":
            names = [want.name] if want.name.startswith("/") else _in_path(want.name)
            for name in names:
                if self.open(name):
                    return
            return
        for soname in want.name.split("|"):
            for folder in (*self._runpath(want.by), *self._library_folders()):
                if self.open(f"{folder}/{soname}"):
                    self._make_reachable(folder, soname)
                    return

    def _runpath(self, needer: str) -> Iterator[str]:
        found = self._paths.get(needer)
        facts = found.member.facts if found else None
        origin = posixpath.dirname(needer)
        for folder in facts.runpath if facts else ():
            yield folder.replace("${ORIGIN}", origin).replace("$ORIGIN", origin)

    def _library_folders(self) -> list[str]:
        if not self._folders:
            self._folders = [*LIBRARY_FOLDERS, *_configured(CONFIGURATION)]
        return self._folders

    def _make_reachable(self, folder: str, soname: str) -> None:
        """A link in the first default folder to a library that only this host's loader configuration finds."""
        if canonical_path(folder) in LIBRARY_FOLDERS or folder not in self._library_folders():
            return
        link = f"{LIBRARY_FOLDERS[0]}/{soname}"
        target = canonical_path(f"{folder}/{soname}")
        self._paths.setdefault(link, Found(Member(link, "symlink", target=target), HOST, f"host:{target}", own=False))

    def _final(self, path: str) -> str:
        for _ in range(MAX_LINKS):
            found = self._paths.get(path)
            if found is None or found.member.kind != "symlink":
                return path
            path = canonical_path(posixpath.normpath(posixpath.join(posixpath.dirname(path), found.member.target)))
        return path

    def _follow(self, path: str) -> str | None:
        """Where a path leads on this host; every link on the way becomes visible. None where it leads nowhere."""
        done: list[str] = []
        todo = [part for part in path.split("/") if part not in ("", ".")][::-1]
        links = 0
        while todo:
            part = todo.pop()
            if part == "..":
                del done[-1:]
                continue
            done.append(part)
            here = "/" + "/".join(done)
            if not os.path.lexists(here):
                return None
            if os.path.islink(here):
                links += 1
                if links > MAX_LINKS:
                    return None
                self._register(here)
                target = os.readlink(here)
                done = [] if target.startswith("/") else done[:-1]
                todo += [part for part in target.split("/") if part not in ("", ".")][::-1]
        return "/" + "/".join(done)

    def _register(self, physical: str) -> None:
        path = canonical_path(physical)
        if path in self._paths or path == canonical_path(path.rpartition("/")[0] or "/"):
            return
        if len(self._paths) > MAX_FILES:
            raise ResolveError(f"more than {MAX_FILES} files below what the template names")
        self._count(physical)
        member = _member(physical, path)
        if member is not None:
            self._paths[path] = Found(member, HOST, f"host:{physical}", own=False)
            self._physical[path] = physical
            known = stamp(physical)
            if known is not None:
                self.stamps[physical] = known

    def _count(self, physical: str) -> None:
        """Refuse by its size, before any of it is read, what no closure could hold."""
        found = os.lstat(physical)
        self._size += found.st_size if stat.S_ISREG(found.st_mode) else 0
        if self._size > MAX_CLOSURE_BYTES:
            raise ResolveError(f"with {physical} it is more than {MAX_CLOSURE_BYTES >> 30} GiB, which no closure holds")

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _member(physical: str, path: str) -> Member | None:
    """What lies at a path of this host; None for sockets, devices and the links that merge /usr."""
    try:
        found = os.lstat(physical)
        if stat.S_ISLNK(found.st_mode):
            merged = physical.count("/") == 1 and canonical_path(f"{physical}/x") != f"{physical}/x"
            return None if merged else Member(path, "symlink", 0o777, target=os.readlink(physical))
        if not stat.S_ISREG(found.st_mode):
            return None
        descriptor = os.open(physical, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            return file_member(path, found.st_mode, descriptor, 0, found.st_size)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        raise ResolveError(f"cannot read {physical}: {error}") from None


def _unmerged(path: str) -> str:
    """Where a host that has not merged /usr may have it."""
    rest = path.removeprefix("/usr")
    return rest if rest.startswith(("/bin/", "/sbin/", "/lib/", "/lib64/")) else path


def _refuse(error: OSError) -> None:
    raise ResolveError(f"cannot read {error.filename}: {error.strerror}")


def _in_path(name: str) -> list[str]:
    return [f"{folder}/{name}" for folder in ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin")]


def _configured(path: str) -> list[str]:
    """The folders that an ld.so.conf names, with the files that it includes (one level, as Debian has it)."""
    found: list[str] = []
    for line in _lines(path):
        if line.startswith("include "):
            for included in sorted(glob.glob(posixpath.join(posixpath.dirname(path), line.split(None, 1)[1]))):
                found += [item for item in _lines(included) if item.startswith("/")]
        elif line.startswith("/"):
            found.append(line)
    return list(dict.fromkeys(found))


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return [line.partition("#")[0].strip() for line in file]
    except OSError:
        return []
