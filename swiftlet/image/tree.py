"""Closures -> Rootfs for containers: one link tree for each closure and one composition on top, stacked by overlay.

A composition is stored like a closure of its own, so that it is checked, shared among equal stacks, and collected
when no guest names it any more; making it again takes milliseconds. Mounting is the launcher's business.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from swiftlet.image.compose import COMPOSITION, compose, merge
from swiftlet.image.ldcache import CONFIGURATION, directories_of
from swiftlet.model.bundle import Rootfs
from swiftlet.model.closure import Closure, canonical_path, closure_of
from swiftlet.model.error import InputError
from swiftlet.store.layout import Layout
from swiftlet.store.plan import is_executable, plan_tree
from swiftlet.store.session import Session

_MAX_CONFIGURATION = 65536


class Stacks:
    """Root file systems by the closures that they are made of, remembered so that a start only looks.

    Safe among threads: two that miss the same one build it twice and find the same.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._known: dict[tuple[str, ...], Rootfs] = {}

    def materialise(self, closures: Sequence[Closure], sonames: Mapping[str, str] | None = None) -> Rootfs:
        """What `materialise` says; a stack that was built before costs one stat for each tree.

        Its trees may be collected right afterwards: write the bundle inside `store.guard.pin`, and materialise
        again where that raises NotFoundError.
        """
        key = tuple(closure.digest for closure in closures)
        known = self._known.get(key)
        if known is None or not all(os.path.isdir(path) for path in known.lowers):
            with Session(self.layout) as session:
                known = self._known[key] = materialise(session, closures, sonames)
        return known


def materialise(session: Session, closures: Sequence[Closure], sonames: Mapping[str, str] | None = None) -> Rootfs:
    """Build what is missing of a stack, topmost closure first; its trees stay at least until the session ends.

    sonames: path -> DT_SONAME of libraries whose file names do not say it. Raises InputError for a path that is
    not canonical or that no tree can have, NotFoundError and CorruptError where the store lacks or lost a file,
    FullError.
    """
    for closure in closures:
        _check_canonical(closure)
    # Overlay refuses a folder that comes twice, and has no use for an empty one. The closures come before their
    # composition, so that what they hold has been checked when it is composed.
    layers = {closure.digest: closure for closure in closures if closure.entries}
    lowers = [_build(session, closure) for closure in layers.values()]
    top = store_composition(session, closures, sonames)
    lowers.insert(0, session.trees.build(top.digest, top.entries))
    return Rootfs(tuple(lowers), (top.digest, *layers), environment(closures), entrypoint(closures))


def _build(session: Session, closure: Closure) -> str:
    """A closure's tree; its record first where it was never saved, since a tree without one cannot be verified."""
    if not session.trees.exists(closure.digest):
        plan_tree(closure.entries)
        if not session.records.has_closure(closure.digest):
            session.records.save_closure(closure)
    return session.trees.build(closure.digest, closure.entries)


def store_composition(
    session: Session, closures: Sequence[Closure], sonames: Mapping[str, str] | None = None
) -> Closure:
    """Put the files of a stack's composition into the store and save it as a closure. Raises InputError, FullError."""
    made = compose(closures, library_directories=_library_directories(session, closures), sonames=sonames)
    for item in made:
        if item.entry.kind == "file":
            session.objects.put_bytes(item.content, expected=item.entry.digest)
    composition = closure_of(COMPOSITION, [item.entry for item in made])
    session.records.save_closure(composition)
    return composition


def environment(closures: Sequence[Closure]) -> dict[str, str]:
    """The variables of all closures; the first that has one wins."""
    merged: dict[str, str] = {}
    for closure in reversed(closures):
        merged.update(closure.env)
    return merged


def entrypoint(closures: Sequence[Closure]) -> tuple[str, ...]:
    """The first entry point that a closure has, or none."""
    return next((closure.entrypoint for closure in closures if closure.entrypoint), ())


def _check_canonical(closure: Closure) -> None:
    """Below /bin a file would be hidden by the composition's link, or hide it."""
    for entry in closure.entries:
        try:
            canonical = canonical_path(entry.path)
        except ValueError as error:
            raise InputError(f"{closure.template}: {error}") from error
        if canonical != entry.path:
            raise InputError(f"{closure.template}: {entry.path} should be spelt {canonical}")


def _library_directories(session: Session, closures: Sequence[Closure]) -> list[str]:
    """What the stack's ld.so.conf files name, in the order of their paths."""
    found: list[str] = []
    for path, entry in sorted(merge(closures).items()):
        if entry.kind == "file" and CONFIGURATION.fullmatch(path):
            fd = session.objects.open(entry.digest, is_executable(entry))
            try:
                found += directories_of(os.read(fd, _MAX_CONFIGURATION).decode(errors="replace"))
            finally:
                os.close(fd)
    return found
