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


def remove(groups: Sequence[Group[T]], passes: Callable[[tuple[T, ...]], bool], removed: list[T]) -> None:
    """Put into `removed` what can go: all of it, else one half of the groups and then the other, and so on into groups.

    passes: whether everything passes without these. k options that are needed take about 2k log2(n) questions.
    """
    waiting: list[Sequence[Group[T]]] = [[group for group in groups if group]]
    while waiting:
        some = waiting.pop(0)
        options = _flat(some)
        if not options:
            continue
        if passes((*removed, *options)):
            removed += options
        elif len(some) > 1:
            waiting[:0] = [some[: len(some) // 2], some[len(some) // 2 :]]
        elif len(options) > 1:
            waiting[:0] = [[options[: len(options) // 2]], [options[len(options) // 2 :]]]


def remove_each(groups: Sequence[Group[T]], passes: Callable[[tuple[T, ...]], bool], removed: list[T]) -> None:
    """The same where most is needed: each group as a whole first, and only then the halves of those that were."""
    split: list[Group[T]] = []
    for group in groups:
        if group and passes((*removed, *group)):
            removed += group
        elif len(group) > 1:
            split += [group[: len(group) // 2], group[len(group) // 2 :]]
    if split:
        remove_each(split, passes, removed)


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
