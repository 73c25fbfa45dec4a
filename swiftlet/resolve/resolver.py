"""References -> closures: the short way from what is recorded, the long way where anything has changed.

An unchanged template needs no network, no YAML and none of the modules that read packages: its key (the digest
of its canonical form, of what it requires, and of this resolver's rules) is compared with the recorded one.
What a template resolved to last lies in `locks/`, so it stays as it is until `upgrade`, or until the template
or a host's file that it took changes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from swiftlet.model.closure import Closure, Entry, closure_of
from swiftlet.model.error import CorruptError, FetchError, InputError, NotFoundError
from swiftlet.resolve.catalogue import Catalogue, Located
from swiftlet.resolve.protocol import Objects, Progress, Records, Sandbox, is_executable, no_progress

if TYPE_CHECKING:
    from swiftlet.resolve.assemble import Assembled, Tools
    from swiftlet.resolve.host import Stamp
    from swiftlet.resolve.lock import Lock

RULES = "8"
"""Changes with anything that makes the same template resolve to other files (walker, policy tables, packs)."""

PROGRAM_FOLDERS = ("/usr/sbin", "/usr/bin")

T = TypeVar("T")


class Resolver:
    """Resolves stacks of templates for one instance.

    objects, records: the store's, of one session. cache_dir: the instance's cache folder. sandbox: runs what
    templates generate; None where there is none.
    """

    def __init__(
        self,
        objects: Objects,
        records: Records,
        cache_dir: str,
        progress: Progress = no_progress,
        sandbox: Sandbox | None = None,
        catalogue: Catalogue | None = None,
    ) -> None:
        self.objects = objects
        self.records = records
        self.cache = os.path.abspath(cache_dir)
        self.progress = progress
        self.sandbox = sandbox
        self.catalogue = catalogue or Catalogue(os.path.dirname(self.cache))
        self._tools: Tools | None = None

    def stack(
        self, references: Sequence[str], *, upgrade: bool = False, lock: Mapping[str, Any] | None = None
    ) -> list[Closure]:
        """The closures of a stack, topmost first: each reference in order, what it requires after it.

        upgrade: take the newest versions that there are. lock: a lock file's JSON values; templates that it names
        become exactly what it says. Raises InputError, NotFoundError, ResolveError, FetchError, StoreError.
        """
        located = self.catalogue.stack(references)
        locks = self._locks(lock)
        done: dict[str, Closure] = {}
        keys: dict[str, str] = {}
        if upgrade:
            self._ready().apt.update()
        for item in reversed(_requirements_last(located, self.catalogue)):
            below = [other.reference for other in self.catalogue.requires(item)]
            keys[item.reference] = _key(item, [keys[reference] for reference in below])
            chosen = locks.get(item.reference)
            if chosen is not None:
                done[item.reference] = self._restore(item, chosen, keys[item.reference], done)
            else:
                done[item.reference] = self._one(item, keys[item.reference], below, done, upgrade)
        return [done[item.reference] for item in located]

    def lock(self, references: Sequence[str]) -> bytes:
        """A lock file of what these references, and what they require, are resolved to.

        Raises NotFoundError for one that has not been resolved.
        """
        from swiftlet.resolve.lock import lock_bytes

        found: list[Lock] = []
        for item in self.catalogue.stack(references):
            record = self._record(item.reference)
            closure = self._closure_of(record)
            if record is None or closure is None:
                raise NotFoundError(f"{item.reference} is not resolved", f"swiftlet template resolve {item.reference}")
            found.append(_lock_of(record, closure))
        return lock_bytes(found)

    def resolved(self, located: Located) -> Closure | None:
        """What a template is resolved to as it is now, without resolving it; None where it is not."""
        record = self._record(located.reference)
        return self._closure_of(record) if record and record.get("template") == located.digest else None

    def _closure_of(self, record: Mapping[str, Any] | None) -> Closure | None:
        if record is None:
            return None
        try:
            return self.records.closure(str(record.get("closure")))
        except (NotFoundError, CorruptError, InputError):
            return None

    def _one(self, item: Located, key: str, below: Sequence[str], done: dict[str, Closure], upgrade: bool) -> Closure:
        closure = None if upgrade else self._recorded(item, key, done)
        return closure or self._resolve(item, key, below, done)

    def _recorded(self, item: Located, key: str, done: Mapping[str, Closure]) -> Closure | None:
        """The short way: the closure of an unchanged template; None where the long way must be taken."""
        record = self._record(item.reference)
        if record is None or record.get("key") != key or not _unchanged(record.get("stamps", ())):
            return None
        if record["lock"].get("borrowed") and not self._fits_below(item, record["lock"]):
            return None
        closure = self._closure_of(record)
        if closure is not None and self._missing(closure.entries):  # objects were damaged and taken away
            return self._restore(item, _lock_of(record, closure), key, done)
        return closure

    def _record(self, reference: str) -> dict[str, Any] | None:
        try:
            return self.records.lock(reference)
        except CorruptError:
            return None

    def _missing(self, entries: Sequence[Entry]) -> list[Entry]:
        """The files that the store lacks."""
        wanted = {(entry.digest, is_executable(entry.mode)): entry for entry in entries if entry.kind == "file"}
        return [entry for (digest, executable), entry in wanted.items() if not self.objects.has(digest, executable)]

    def _resolve(self, item: Located, key: str, below: Sequence[str], done: dict[str, Closure]) -> Closure:
        """The long way."""
        import msgspec

        from swiftlet.resolve.apt import Package
        from swiftlet.resolve.assemble import assemble

        under = self._entries_below(item, done)
        beneath = msgspec.convert(self._packages_below(item), list[Package])
        template = item.template
        made = self._with_fresh_lists(
            lambda: assemble(template, self._ready(), below=under, beneath=beneath, family=item.family)
        )
        closure = closure_of(
            item.reference,
            made.entries,
            requires=tuple(below),
            env=template.env,
            entrypoint=template.entrypoint or _entrypoint(item, made.entries),
            users=template.users,
        )
        self._save(item, key, closure, made)
        return closure

    def _entries_below(self, item: Located, done: Mapping[str, Closure]) -> list[Entry]:
        return [entry for other in self.catalogue.below(item) for entry in done[other.reference].entries]

    def _fits_below(self, item: Located, lock: Mapping[str, Any]) -> bool:
        """Whether what was borrowed is still what lies below: libraries of two releases might not fit one another."""
        below: dict[str, str] = {}
        for package in self._packages_below(item):
            below.setdefault(package["name"], package["version"])
        return all(
            below.get(package["name"], package["version"]) == package["version"]
            for package in lock["packages"]
            if package["name"] in lock["borrowed"]
        )

    def _packages_below(self, item: Located) -> list[dict[str, Any]]:
        """What the templates that this one requires were made of, as recorded, topmost first."""
        records = [self._record(other.reference) for other in self.catalogue.below(item)]
        return [package for record in records if record for package in record["lock"].get("packages", ())]

    def _save(self, item: Located, key: str, closure: Closure, made: Assembled) -> None:
        from swiftlet.resolve.lock import FORMAT, Lock

        lock = Lock(
            format=FORMAT,
            reference=item.reference,
            template=item.template,
            template_digest=item.digest,
            closure=closure.digest,
            entries=closure.entries,
            requires=closure.requires,
            packages=made.packages,
            wheels=made.wheels,
            entrypoint=closure.entrypoint,
            family=item.family,
            borrowed=made.borrowed,
        )
        self._write(item, key, closure, lock, made.stamps)

    def _write(self, item: Located, key: str, closure: Closure, lock: Lock, stamps: Sequence[Stamp]) -> None:
        import msgspec

        from swiftlet.resolve.lock import lock_data

        self.records.save_closure(closure)
        record = {
            "key": key,
            "template": item.digest,
            "closure": closure.digest,
            "stamps": msgspec.to_builtins(stamps),
            "lock": lock_data(msgspec.structs.replace(lock, entries=())),
        }
        self.records.save_lock(item.reference, record)

    def _restore(self, item: Located, lock: Lock, key: str, done: Mapping[str, Closure]) -> Closure:
        """Exactly what a lock says, fetching what the store lacks."""
        from swiftlet.resolve.restore import restore

        closure = lock.sealed()
        missing = self._missing(closure.entries)
        if missing:
            under = self._entries_below(item, done)
            self._with_fresh_lists(lambda: restore(lock, missing, self._ready(), under))
        fresh = key if lock.template_digest == item.digest else f"lock:{closure.digest}"
        self._write(item, fresh, closure, lock, ())
        return closure

    def _with_fresh_lists(self, work: Callable[[], T]) -> T:
        """Do the work; where the package lists know too little, fetch newer ones and try once more."""
        from swiftlet.resolve.apt import StaleListsError, UnknownPackageError

        try:
            try:
                return work()
            except (StaleListsError, UnknownPackageError):
                if self._ready().apt.updated:
                    raise
                self._ready().apt.update()
                return work()
        except StaleListsError as error:
            raise FetchError(str(error), error.hint) from None
        except UnknownPackageError as error:
            raise NotFoundError(str(error), error.hint) from None

    def _locks(self, lock: Mapping[str, Any] | None) -> dict[str, Lock]:
        if lock is None:
            return {}
        from swiftlet.resolve.lock import locks_of

        return locks_of(dict(lock))

    def _ready(self) -> Tools:
        """The tools of the long way, made when first needed."""
        if self._tools is None:
            from swiftlet.resolve.apt import Apt
            from swiftlet.resolve.assemble import Tools

            apt = Apt(self.cache, self.progress)
            self._tools = Tools(self.objects, apt, self.cache, self.progress, self.sandbox)
        return self._tools


def _requirements_last(located: list[Located], catalogue: Catalogue) -> list[Located]:
    """An order in which every template comes before what it requires, whatever the stack's own order is."""
    by_reference = {item.reference: item for item in located}
    waiting = {item.reference: 0 for item in located}
    for item in located:
        for other in catalogue.requires(item):
            waiting[other.reference] += 1
    ready = [reference for reference, count in waiting.items() if count == 0]
    order: list[Located] = []
    while ready:
        item = by_reference[ready.pop()]
        order.append(item)
        for other in catalogue.requires(item):
            waiting[other.reference] -= 1
            if waiting[other.reference] == 0:
                ready.append(other.reference)
    return order


def _lock_of(record: Mapping[str, Any], closure: Closure) -> Lock:
    """The lock that a record stands for; records leave out the entries, which the closure has."""
    import msgspec

    from swiftlet.resolve.lock import Lock

    return msgspec.structs.replace(msgspec.convert(record["lock"], Lock), entries=closure.entries)


def _key(item: Located, below: Sequence[str]) -> str:
    state = hashlib.sha256(f"{RULES}\0{item.digest}\0{item.family}".encode())
    for key in below:
        state.update(key.encode())
    return state.hexdigest()


def _unchanged(stamps: Sequence[Mapping[str, Any]]) -> bool:
    """Whether this host's files that a closure was made of are what they were."""
    for stamp in stamps:
        try:
            found = os.lstat(stamp["path"])
        except (OSError, ValueError):
            return False
        if (found.st_ino, found.st_size, found.st_mtime_ns) != (stamp["inode"], stamp["size"], stamp["mtime_ns"]):
            return False
    return True


def _entrypoint(item: Located, entries: Sequence[Entry]) -> tuple[str, ...]:
    """What `deb:NAME` runs when no command is given: the program of the package's name."""
    if not item.family:
        return ()
    name = item.template.name.removeprefix("deb:")
    paths = {entry.path for entry in entries}
    return next(((f"{folder}/{name}",) for folder in PROGRAM_FOLDERS if f"{folder}/{name}" in paths), ())
