"""Why a file is in a stack: the chain of entries from it up to what the template asked for."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from swiftlet.model.closure import Closure, Entry, canonical_path
from swiftlet.model.error import InputError, NotFoundError


def explain(closures: Sequence[Closure], path: str) -> list[Entry]:
    """The entry of a path, then the entry that caused it, and so on to one that the template asked for itself.

    The topmost closure that has the path answers. A bare name means the first of `paths_named`. Raises InputError for
    what is neither, NotFoundError with near paths.
    """
    try:
        wanted = next(iter(paths_named(closures, path)), f"/{path}") if _is_name(path) else canonical_path(path)
    except ValueError as error:
        raise InputError(str(error)) from None
    for closure in closures:
        by_path = {entry.path: entry for entry in closure.entries}
        if wanted in by_path:
            return _chain(by_path, by_path[wanted])
    names = [entry.path for closure in closures for entry in closure.entries]
    near = _near(wanted, names)
    templates = ", ".join(closure.template for closure in closures)
    raise NotFoundError(f"{path} is not in {templates}", f"near it: {', '.join(near)}" if near else "")


def paths_named(closures: Sequence[Closure], name: str) -> list[str]:
    """The paths that end in this name, such as libssl.so.3, those of the topmost closure first."""
    if not _is_name(name):
        return []
    entries = [entry for closure in closures for entry in closure.entries]
    return list(dict.fromkeys(entry.path for entry in entries if entry.path.endswith(f"/{name}")))


def _is_name(text: str) -> bool:
    return bool(text) and "/" not in text and "\0" not in text


def _chain(by_path: dict[str, Entry], entry: Entry) -> list[Entry]:
    chain = [entry]
    seen = {entry.path}
    while entry.by in by_path and entry.by not in seen:
        entry = by_path[entry.by]
        seen.add(entry.path)
        chain.append(entry)
    return chain


def _near(wanted: str, paths: list[str]) -> list[str]:
    """Paths with the same name elsewhere, else with a similar name in any folder."""
    name = wanted.rpartition("/")[2]
    same = [path for path in paths if path.endswith(f"/{name}")]
    if same:
        return same[:4]
    by_name = {path.rpartition("/")[2]: path for path in paths}
    return [by_name[found] for found in difflib.get_close_matches(name, by_name, 3, 0.7)]
