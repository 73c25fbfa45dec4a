"""What a derived kernel might do without, in the order in which it is tried away: by classes, menus, bytes. Pure.

What is least proven goes first: what was given back, what nothing ran of, what ran only in code that the kernel gives
up (INIT), or only before there was a process (BOOT), and then what ran and may yet not be needed. Last comes what
guests are known to need, which only the rest of a budget is spent on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from swiftlet.image.kernel.derive import Evidence
from swiftlet.image.kernel.kconfig import Option
from swiftlet.image.kernel.trace import Phase

Groups = list[tuple[str, ...]]
"""Options by menus, the largest menu first."""

_NAMED = 3


class Candidates(NamedTuple):
    """first: a class each of what was given back, never ran, ran in INIT, in BOOT, and in use. last: see above."""

    first: list[Groups]
    last: Groups


def candidates(
    on: Iterable[str],
    added: Sequence[str],
    evidence: Mapping[str, Evidence],
    used: Collection[str],
    fixed: Collection[str],
    last: Collection[str],
    size: Callable[[str], int],
    options: Mapping[str, list[Option]],
) -> Candidates:
    """Sort options that are on and can be off. used: what ran in use, fixed: what is kept, last: what goes last.

    All three with what they depend on. size: bytes of an option.
    """
    classes: list[list[str]] = [[], [], [], [], []]
    late: list[str] = []
    for symbol in on:
        if symbol in fixed:
            continue
        if symbol in used:
            (late if symbol in last else classes[4]).append(symbol)
        elif symbol in added:
            classes[0].append(symbol)
        else:
            ran = evidence.get(symbol)
            classes[1 if ran is None else 2 if ran.phase == Phase.INIT else 3].append(symbol)
    return Candidates([_largest_first(each, size, options) for each in classes], _largest_first(late, size, options))


def _largest_first(
    symbols: Iterable[str], size: Callable[[str], int], options: Mapping[str, list[Option]]
) -> Groups:  # fmt: skip
    groups = [group for _, group in by_menu(symbols, options)]
    return sorted(groups, key=lambda group: -sum(map(size, group)))


def by_menu(symbols: Iterable[str], options: Mapping[str, list[Option]]) -> list[tuple[str, tuple[str, ...]]]:
    """Symbols by the folder of the file that defines them, at most two deep: fs/ext4, drivers/net, init."""
    found: dict[str, list[str]] = {}
    for symbol in symbols:
        folder = os.path.dirname(options[symbol][0].file) if options.get(symbol) else ""
        found.setdefault("/".join(folder.split("/")[:2]), []).append(symbol)
    return [(menu, tuple(group)) for menu, group in sorted(found.items())]


def question(
    added: Sequence[str], removed: Sequence[str], known: Collection[str], options: Mapping[str, list[Option]]
) -> str:
    """What a run asks, for people: the menus of what is taken away now, those of most options first.

    known: what is off in the best kernel so far.
    """
    more = f" and {len(added)} options more" if added else ""
    menus = sorted(by_menu((each for each in removed if each not in known), options), key=lambda row: -len(row[1]))
    if not menus:
        return f"what has run{more}"
    count = sum(len(group) for _, group in menus)
    named = ", ".join(menu or "the top" for menu, _ in menus[:_NAMED])
    others = f" and {len(menus) - _NAMED} menus more" if len(menus) > _NAMED else ""
    return f"what has run{more} without {count} options, of {named}{others}"
