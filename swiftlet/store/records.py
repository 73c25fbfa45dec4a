"""What is kept about templates: closures by digest and locks by name. The values are the resolver's business.

Both are sealed (see `files`): no byte of them changes unnoticed.
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import quote, unquote

import msgspec

from swiftlet.model.closure import Closure, digest_of
from swiftlet.model.error import CorruptError, InputError, NotFoundError
from swiftlet.store.files import read_bytes, seal, storing, unseal, write_atomic
from swiftlet.store.guard import Guard, guarded
from swiftlet.store.layout import DIGEST, Layout, digests_in
from swiftlet.store.objects import EMPTY
from swiftlet.store.plan import is_executable

_MAX_NAME = 240
_SUFFIX = ".json"
_PLAIN = "@:=+,~"


class Records:
    """The closures and locks of one store.

    guard: the session that keeps what is saved or read; saving takes one of its own where there is none.
    """

    def __init__(self, layout: Layout, guard: Guard | None = None) -> None:
        self.layout = layout
        self.guard = guard

    def save_closure(self, closure: Closure) -> None:
        """Keep a closure by its digest. It lasts while a lock or a guest names it. Put its files first.

        Raises InputError unless it carries its own digest, NotFoundError where an object of it is missing,
        FullError.
        """
        if closure.digest != digest_of(closure):
            raise InputError(f"closure of {closure.template} does not carry its own digest")
        with guarded(self.layout, self.guard) as guard:
            guard.keep((closure.digest, *(entry.digest for entry in closure.entries if entry.digest)))
            self._check_contents(closure)
            write_atomic(self.layout.closure(closure.digest), seal(closure), staging=guard.directory)

    def _check_contents(self, closure: Closure) -> None:
        for entry in closure.entries:
            if entry.kind == "file" and entry.digest != EMPTY:
                path = self.layout.object(entry.digest, is_executable(entry))
                if not os.path.lexists(path):
                    raise NotFoundError(f"the content of {entry.path} ({entry.digest}) is not in the store")

    def closure(self, digest: str) -> Closure:
        """Read a closure; it and its objects stay until the session ends. Raises NotFoundError, CorruptError."""
        path = self.layout.closure(digest)
        if self.guard is not None:
            self.guard.keep((digest,))
        return decode_closure(read_bytes(path), digest, path)

    def has_closure(self, digest: str) -> bool:
        """Whether a closure is there; it and its objects stay until the session ends."""
        path = self.layout.closure(digest)
        if self.guard is not None:
            self.guard.keep((digest,))
        return os.path.exists(path)

    def closures(self) -> list[str]:
        """Digests of all closures, sorted."""
        return [name for name in _stems(self.layout.closures) if DIGEST.fullmatch(name)]

    def save_lock(self, name: str, lock: dict[str, Any]) -> None:
        """Keep what a template resolved to, in place of what it resolved to before.

        Every closure, tree and object whose digest occurs in it, anywhere, is kept from now on. Raises InputError
        where the name is too long, FullError (the old lock stays).
        """
        path = self.lock_path(name)
        with guarded(self.layout, self.guard) as guard:
            guard.keep(digests_in(msgspec.json.encode(lock)))
            write_atomic(path, seal(lock), staging=guard.directory)

    def lock(self, name: str) -> dict[str, Any] | None:
        """What was saved, or None; what it names stays until the session ends. Raises CorruptError."""
        path = self.lock_path(name)
        if not os.path.exists(path):
            return None
        data = unseal(read_bytes(path), path)
        if self.guard is not None:
            self.guard.keep(digests_in(data))
        found = msgspec.json.decode(data)
        if not isinstance(found, dict):
            raise CorruptError(f"{path} is not a lock", "resolve the template again")
        return found

    def locks(self) -> list[str]:
        """Names of all locks, sorted."""
        return sorted(unquote(stem) for stem in _stems(self.layout.locks))

    def remove_lock(self, name: str) -> bool:
        """Forget what a template resolved to; the next collection removes its files. False where there is none."""
        with storing(self.layout.locks):
            try:
                os.unlink(self.lock_path(name))
            except FileNotFoundError:
                return False
        return True

    def lock_path(self, name: str) -> str:
        """Absolute path of a lock: the name with everything unusual in it as %XX. Raises InputError."""
        try:
            stem = quote(name, safe=_PLAIN)
        except UnicodeEncodeError:
            stem = ""
        if not 0 < len(stem) <= _MAX_NAME:
            raise InputError(f"not a template's name (1 to {_MAX_NAME} bytes): {name[:80]!r}")
        if stem.startswith("."):
            stem = "%2E" + stem[1:]
        return f"{self.layout.locks}/{stem}{_SUFFIX}"


def _stems(folder: str) -> list[str]:
    with storing(folder):
        names = os.listdir(folder)
    return sorted(name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX) and not name.startswith("."))


def decode_closure(document: bytes, digest: str, path: str) -> Closure:
    """A closure from its sealed record. Raises CorruptError unless it is the one of that digest."""
    hint = "resolve its template again"
    try:
        closure = msgspec.json.decode(unseal(document, path), type=Closure)
    except msgspec.DecodeError as error:
        raise CorruptError(f"{path} is not a closure: {error}", hint) from error
    if closure.digest != digest or digest_of(closure) != digest:
        raise CorruptError(f"{path} holds another closure", hint)
    return closure
