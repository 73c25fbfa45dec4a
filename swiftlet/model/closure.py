"""Closure: the resolved, sorted list of what a template puts into a guest, each entry with its reason."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
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
    by: path of the entry that caused this one, "" where the template itself asked for it.
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
    by: str = ""

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


def closure_digest(
    entries: tuple[Entry, ...],
    template: str = "",
    requires: tuple[str, ...] = (),
    env: Mapping[str, str] | None = None,
    entrypoint: tuple[str, ...] = (),
    users: Mapping[str, int] | None = None,
) -> str:
    """SHA-256 (hex) of a closure; two closures with the same digest make the same tree and the same environment.

    The part that is no file is covered too: two templates with the same files (or with none, only `requires`)
    and different variables must not share one record.
    """
    state = hashlib.sha256()
    for entry in entries:
        state.update(entry.identity.encode())
    about = [template, requires, sorted((env or {}).items()), entrypoint, sorted((users or {}).items())]
    state.update(msgspec.json.encode(about))
    return state.hexdigest()


def digest_of(closure: Closure) -> str:
    """The digest that a closure must carry, computed anew from all that it covers."""
    return closure_digest(
        closure.entries, closure.template, closure.requires, closure.env, closure.entrypoint, closure.users
    )


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
    digest = closure_digest(ordered, template, requires, env, entrypoint, users)
    return Closure(template, digest, ordered, requires, dict(env or {}), entrypoint, dict(users or {}))


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
