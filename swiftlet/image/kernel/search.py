"""Delta debugging over groups of options: which additions make a kernel pass, which removals leave it passing.

After Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input" (2002), with groups that are given
(menus) instead of arbitrary halves, since options of one menu belong together. Each question costs a build, so the
caller's `passes` may raise at any moment: what was found so far is in the list that it gave. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")
Group = tuple[T, ...]


def remove(groups: Iterable[Group[T]], passes: Callable[[tuple[T, ...]], bool], removed: list[T]) -> None:
    """Put into `removed` what can go, group by group; a group that cannot go as a whole is halved, and so on.

    passes: whether everything passes without these. At most 2n questions for a group of n.
    """
    waiting = [group for group in groups if group]
    while waiting:
        group = waiting.pop(0)
        if passes((*removed, *group)):
            removed += group
        elif len(group) > 1:
            middle = len(group) // 2
            waiting[:0] = [group[:middle], group[middle:]]


def add(groups: Sequence[Group[T]], passes: Callable[[tuple[T, ...]], bool], added: list[T]) -> None:
    """Put into `added` groups with which everything passes, given that it does with all of them.

    passes: whether everything passes with these. One more group that is needed is found in log2(n) questions.
    """
    while not passes(tuple(added)) and groups:
        first, last = 1, len(groups)  # the shortest beginning that is enough ends with a group that is needed
        while first < last:
            middle = (first + last) // 2
            if passes((*added, *_flat(groups[:middle]))):
                last = middle
            else:
                first = middle + 1
        added += groups[last - 1]
        groups = groups[: last - 1]


def _flat(groups: Iterable[Group[T]]) -> tuple[T, ...]:
    return tuple(each for group in groups for each in group)
