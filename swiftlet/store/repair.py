"""Taking damage out of use, so that the next resolution fetches what was lost anew."""

from __future__ import annotations

import os
from collections.abc import Iterable
from fcntl import LOCK_EX
from typing import NamedTuple

from swiftlet.model.error import CorruptError, NotFoundError, StoreError
from swiftlet.store.files import read_bytes, storing, unseal
from swiftlet.store.guard import locked
from swiftlet.store.interim import remove
from swiftlet.store.layout import DIGEST, Layout, digests_in, parse_object
from swiftlet.store.objects import EMPTY
from swiftlet.store.plan import is_executable
from swiftlet.store.records import Records, decode_closure
from swiftlet.store.verify import Damage, read_problem


class Repaired(NamedTuple):
    """How many of each were taken out of use."""

    objects: int
    trees: int
    closures: int
    locks: int


class _Broken(NamedTuple):
    """Absolute paths that must go."""

    objects: set[str]
    trees: set[str]
    closures: set[str]
    locks: set[str]


def repair(layout: Layout, damaged: Iterable[Damage]) -> Repaired:
    """Take out of use what `verify` found damaged, and all that was built on it.

    - a damaged object goes, and with it every closure that has it, their trees, and the locks that name those;
    - a damaged closure goes, with its tree and the locks that name it;
    - a tree that is not as its closure says goes alone: it is built again from its objects when next needed;
    - a damaged lock goes; what is no object, tree or record at all goes.

    A tree that a guest names is only renamed to DIGEST.damaged: a running guest keeps what it has mounted, nothing
    new starts from it, and a collection removes it when the guest is removed. Templates without a lock resolve
    anew. What a pull has put right since `verify` looked stays. Makes no file. Raises StoreError.
    """
    with storing(layout.root), locked(layout, "store.lock", LOCK_EX):
        broken = _spread(layout, [damage for damage in damaged if _persists(layout, damage)])
        in_use = _named_by_guests(layout)
        return Repaired(
            sum(_drop(path) for path in broken.objects),
            sum(_retire(path, in_use) for path in broken.trees),
            sum(_drop(path) for path in broken.closures),
            sum(_drop(path) for path in broken.locks),
        )


def _persists(layout: Layout, damage: Damage) -> bool:
    """Whether an object or a record is still damaged; of trees it is taken for granted, they are soon made again."""
    folder, name = os.path.split(damage.path)
    try:
        if folder == layout.closures:
            decode_closure(read_bytes(damage.path), name.removesuffix(".json"), damage.path)
        elif folder == layout.locks:
            unseal(read_bytes(damage.path), damage.path)
        elif damage.path.startswith(f"{layout.objects}/"):
            return _object_is_bad(folder, name, damage.path)
        else:
            return True
    except (StoreError, NotFoundError):
        return True
    return False


def _object_is_bad(folder: str, name: str, path: str) -> bool:
    parsed = parse_object(os.path.basename(folder), name)
    return parsed is None or read_problem(path, None, *parsed)[0] != ""


def _spread(layout: Layout, damaged: list[Damage]) -> _Broken:
    """The damage and everything that rests on it."""
    broken = _Broken(set(), set(), set(), set())
    for damage in damaged:
        _sort_in(layout, damage, broken)
    gone = {damage.digest for damage in damaged if damage.path in broken.closures and DIGEST.fullmatch(damage.digest)}
    for digest in Records(layout).closures():
        if _rests_on(layout, digest, broken.objects):
            broken.closures.add(layout.closure(digest))
            gone.add(digest)
    broken.trees.update(layout.tree(digest) for digest in gone)
    broken.locks.update(_locks_naming(layout, gone))
    return broken


def _sort_in(layout: Layout, damage: Damage, broken: _Broken) -> None:
    folder, _, rest = damage.path.removeprefix(layout.root + "/").partition("/")
    if folder == "objects":
        broken.objects.add(damage.path)
    elif folder == "trees":
        broken.trees.add(f"{layout.trees}/{rest.partition('/')[0]}")
    elif folder == "closures":
        broken.closures.add(damage.path)
    elif folder == "locks":
        broken.locks.add(damage.path)


def _rests_on(layout: Layout, digest: str, objects: set[str]) -> bool:
    """Whether a closure has one of these objects; one that cannot be read does not say."""
    path = layout.closure(digest)
    try:
        entries = decode_closure(read_bytes(path), digest, path).entries
    except (CorruptError, NotFoundError):
        return False
    # Every tree has empty files of its own: no closure rests on the object of nothing.
    files = (entry for entry in entries if entry.kind == "file" and entry.digest != EMPTY)
    return any(layout.object(entry.digest, is_executable(entry)) in objects for entry in files)


def _locks_naming(layout: Layout, digests: set[str]) -> set[str]:
    paths = [f"{layout.locks}/{name}" for name in os.listdir(layout.locks)]
    return {path for path in paths if digests_in(read_bytes(path)) & digests}


def _named_by_guests(layout: Layout) -> set[str]:
    named: set[str] = set()
    for name in os.listdir(layout.guests):
        try:
            named |= digests_in(read_bytes(f"{layout.guests}/{name}/bundle.json"))
        except NotFoundError:
            pass
    return named


def _drop(path: str) -> bool:
    """Remove a file in one step, a folder by way of a name that no tree has; False where it is not there."""
    if not os.path.lexists(path):
        return False
    if os.path.isdir(path) and not os.path.islink(path):
        hidden = f"{path}.removed"
        remove(hidden)
        os.rename(path, hidden)
        path = hidden
    remove(path)
    return True


def _retire(path: str, in_use: set[str]) -> bool:
    if os.path.basename(path) not in in_use:
        return _drop(path)
    retired = f"{path}.damaged"
    _drop(retired)
    try:
        os.rename(path, retired)
    except FileNotFoundError:
        return False
    return True
