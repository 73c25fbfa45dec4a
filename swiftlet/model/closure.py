"""Closure: the resolved, sorted list of what a template puts into a guest, each entry with its reason."""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

Kind = Literal["file", "directory", "symlink"]


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One path of a closure.

    path: absolute and canonical in the guest (merged /usr: never below /bin, /sbin, /lib, /lib64).
    mode: permission bits only, no set-uid, set-gid or write bit on files.
    digest, size: SHA-256 (hex) and bytes of a file's content.
    target: a symbolic link's target, as written.
    uid, gid: owner of a directory; files belong to root always.
    source: where it came from, e.g. `deb:libc6=2.36-9+deb12u10`, `host:/usr/bin/make`, `wheel:...`, `generated`.
    why: a sentence fragment for people, e.g. `needed by /usr/sbin/nginx (DT_NEEDED libpcre2-8.so.0)`.
    """

    path: str
    kind: Kind
    mode: int = 0o755
    digest: str = ""
    size: int = 0
    target: str = ""
    uid: int = 0
    gid: int = 0
    source: str = ""
    why: str = ""

    @property
    def identity(self) -> str:
        """What the closure's digest covers: all that a guest could see, not where it came from."""
        return f"{self.path}\0{self.kind}\0{self.mode:o}\0{self.digest}\0{self.target}\0{self.uid}\0{self.gid}\n"


class Closure(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one template puts into a guest, without what it requires. Made by `closure_of`."""

    template: str
    digest: str
    entries: tuple[Entry, ...]
    requires: tuple[str, ...] = ()
    env: dict[str, str] = {}
    entrypoint: tuple[str, ...] = ()
    users: dict[str, int] = {}

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.entries)

    def find(self, path: str) -> Entry | None:
        """The entry of a canonical path, or None."""
        for entry in self.entries:
            if entry.path == path:
                return entry
        return None


def closure_digest(entries: tuple[Entry, ...]) -> str:
    """SHA-256 (hex) of sorted entries; two closures with the same digest make the same tree."""
    state = hashlib.sha256()
    for entry in entries:
        state.update(entry.identity.encode())
    return state.hexdigest()


def closure_of(
    template: str,
    entries: list[Entry],
    *,
    requires: tuple[str, ...] = (),
    env: dict[str, str] | None = None,
    entrypoint: tuple[str, ...] = (),
    users: dict[str, int] | None = None,
) -> Closure:
    """Sort the entries and seal them with their digest."""
    ordered = tuple(sorted(entries, key=lambda entry: entry.path))
    return Closure(template, closure_digest(ordered), ordered, requires, dict(env or {}), entrypoint, dict(users or {}))


def canonical_path(path: str) -> str:
    """The merged-/usr spelling of an absolute guest path: /bin/sh becomes /usr/bin/sh.

    Raises ValueError for a path that is relative, climbs with `..`, or holds a NUL.
    """
    if not path.startswith("/") or "\0" in path:
        raise ValueError(f"not an absolute path: {path!r}")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ValueError(f"path climbs out of the root: {path!r}")
    if parts and parts[0] in ("bin", "sbin", "lib", "lib64", "lib32", "libx32"):
        parts.insert(0, "usr")
    return "/" + "/".join(parts)
