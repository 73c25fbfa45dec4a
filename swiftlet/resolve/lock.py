"""The lock: everything that a template resolved to, so that it can be had again, byte for byte, elsewhere.

A lock names packages by version and SHA-256 and files by SHA-256; it holds no address. Whoever writes one may
be an enemy: reading checks every field, and that the digests it claims are those of what it lists.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from swiftlet.model.closure import Closure, Entry, canonical_path, closure_of
from swiftlet.model.error import InputError
from swiftlet.model.template import MAX_CLOSURE_BYTES, MAX_REQUIRES, Template
from swiftlet.resolve.apt import Package
from swiftlet.resolve.canonical import template_digest
from swiftlet.resolve.walk import MAX_FILES
from swiftlet.resolve.wheel import Wheel

FORMAT = 1
MAX_BYTES = 256 << 20

_DIGEST = re.compile(r"[0-9a-f]{64}")
_MAX_ID = 65535


class Lock(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One template's resolution.

    reference: as the user names it. family: see `assemble`. requires: references of the templates below it.
    borrowed: names of those `packages` that came with these, for libraries that nothing of its own has.
    """

    format: int
    reference: str
    template: Template
    template_digest: str
    closure: str
    entries: tuple[Entry, ...]
    requires: tuple[str, ...] = ()
    packages: tuple[Package, ...] = ()
    wheels: tuple[Wheel, ...] = ()
    entrypoint: tuple[str, ...] = ()
    family: bool = False
    borrowed: tuple[str, ...] = ()

    def sealed(self) -> Closure:
        """The closure that this lock describes, with its digest computed anew."""
        template = self.template
        return closure_of(
            self.reference,
            list(self.entries),
            requires=self.requires,
            env=template.env,
            entrypoint=self.entrypoint,
            users=template.users,
        )


def lock_data(lock: Lock) -> dict[str, Any]:
    """Plain JSON values of a lock."""
    found: dict[str, Any] = msgspec.to_builtins(lock)
    return found


def lock_bytes(locks: list[Lock]) -> bytes:
    """A lock file for people's repositories: one entry on each line, so that a change shows."""
    head = f'{{"format": {FORMAT}, "locks": [\n'
    return (head + ",\n".join(_lines(lock) for lock in locks) + "\n]}\n").encode()


def _lines(lock: Lock) -> str:
    plain = lock_data(lock)
    lists = {name: plain.pop(name) for name in ("packages", "wheels", "entries") if name in plain}
    text = json.dumps(plain, indent=1, ensure_ascii=False)[:-2]
    for name, items in lists.items():
        rows = ",\n".join("  " + json.dumps(item, ensure_ascii=False) for item in items)
        text += f',\n "{name}": [\n{rows}\n ]'
    return text + "\n}"


def parse_locks(data: bytes, name: str = "lock") -> dict[str, Lock]:
    """Locks by reference, from a lock file or one lock; errors call it `name`. Raises InputError."""
    if len(data) > MAX_BYTES:
        raise InputError(f"{name} is longer than {MAX_BYTES >> 20} MiB")
    try:
        plain = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{name}: not JSON: {error}") from None
    return locks_of(plain, name)


def locks_of(plain: Any, name: str = "lock") -> dict[str, Lock]:
    """As `parse_locks`, from JSON values. Raises InputError with the path into the document."""
    if not isinstance(plain, dict):
        raise InputError(f"{name}: $: expected an object")
    if "locks" not in plain:
        lock = _lock_of(plain, name, "$")
        return {lock.reference: lock}
    _check_format(plain.get("format"), name, "$")
    many = plain["locks"]
    if not isinstance(many, list) or not 0 < len(many) <= MAX_REQUIRES:
        raise InputError(f"{name}: $.locks: expected a list of 1 to {MAX_REQUIRES} locks")
    locks = [_lock_of(item, name, f"$.locks[{index}]") for index, item in enumerate(many)]
    return {lock.reference: lock for lock in locks}


def _check_format(found: Any, name: str, path: str) -> None:
    if found != FORMAT:
        raise InputError(f"{name}: {path}.format: {found!r} is not {FORMAT}", "resolve anew with this swiftlet")


def _lock_of(plain: Any, name: str, path: str) -> Lock:
    if isinstance(plain, dict):
        _check_format(plain.get("format"), name, path)
    try:
        lock = msgspec.convert(plain, Lock)
    except (msgspec.ValidationError, RecursionError) as error:
        message, _, where = str(error).partition(" - at `$")
        raise InputError(f"{name}: {path}{where.rstrip('`')}: {message}") from None
    check = _Check(name, path)
    check.lock(lock)
    return lock


class _Check:
    """Checks of one lock; each error says where."""

    def __init__(self, name: str, path: str) -> None:
        self.name = name
        self.path = path

    def error(self, where: str, problem: str) -> InputError:
        return InputError(f"{self.name}: {self.path}{where}: {problem}", "the lock is damaged or was tampered with")

    def lock(self, lock: Lock) -> None:
        if len(lock.entries) > MAX_FILES:
            raise self.error(".entries", f"more than {MAX_FILES} entries")
        if len(lock.requires) > MAX_REQUIRES:
            raise self.error(".requires", f"more than {MAX_REQUIRES} templates")
        seen: set[str] = set()
        for index, entry in enumerate(lock.entries):
            self.entry(entry, f".entries[{index}]")
            if entry.path in seen:
                raise self.error(f".entries[{index}].path", f"{entry.path} comes twice")
            seen.add(entry.path)
        if sum(entry.size for entry in lock.entries) > MAX_CLOSURE_BYTES:
            raise self.error(".entries", f"more than {MAX_CLOSURE_BYTES >> 30} GiB")
        self.archives(lock)
        self.template(lock.template)
        if template_digest(lock.template) != lock.template_digest:
            raise self.error(".template_digest", "is not the digest of the template")
        if lock.sealed().digest != lock.closure:
            raise self.error(".closure", "is not the digest of the entries")

    def template(self, template: Template) -> None:
        from swiftlet.resolve.template import check_template

        check_template(template, f"{self.name}: {self.path}.template")

    def entry(self, entry: Entry, where: str) -> None:
        try:
            canonical = entry.path == canonical_path(entry.path)
            f"{entry.path}{entry.target}".encode()
        except (ValueError, UnicodeError):
            canonical = False
        if not canonical or entry.path == "/":
            raise self.error(f"{where}.path", f"not a canonical path: {entry.path[:80]!r}")
        if entry.mode & ~(0o555 if entry.kind == "file" else 0o1777):
            raise self.error(f"{where}.mode", f"{entry.mode:#o} is more than a {entry.kind} may have")
        if entry.kind == "file" and (not _DIGEST.fullmatch(entry.digest) or entry.uid or entry.gid):
            raise self.error(f"{where}.digest", "a file needs a SHA-256 digest and belongs to root")
        if entry.kind == "symlink" and (not entry.target or "\0" in entry.target or len(entry.target) > 4095):
            raise self.error(f"{where}.target", "not a link's target")
        if not 0 <= entry.size <= MAX_CLOSURE_BYTES or not 0 <= entry.uid <= _MAX_ID or not 0 <= entry.gid <= _MAX_ID:
            raise self.error(where, "a size or an owner out of bounds")

    def archives(self, lock: Lock) -> None:
        for index, package in enumerate(lock.packages):
            self.package(package.name, package.version, package.sha256, f".packages[{index}]")
        for index, wheel in enumerate(lock.wheels):
            self.package(wheel.name, wheel.version, wheel.sha256, f".wheels[{index}]")
            if not wheel.place.startswith("/") or ".." in wheel.place.split("/"):
                raise self.error(f".wheels[{index}].place", f"not a guest path: {wheel.place[:80]!r}")

    def package(self, name: str, version: str, sha256: str, where: str) -> None:
        """Names and versions go into command lines: nothing that could be an option or a path."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9+._-]{0,200}", name):
            raise self.error(f"{where}.name", f"not a package: {name[:80]!r}")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+:~_-]{0,200}", version):
            raise self.error(f"{where}.version", f"not a version: {version[:80]!r}")
        if not _DIGEST.fullmatch(sha256):
            raise self.error(f"{where}.sha256", "not a SHA-256 digest")
