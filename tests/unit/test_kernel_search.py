"""Delta debugging finds what is needed, with few questions, and keeps what it found when it is broken off."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiftlet.image.kernel import search

OPTIONS = st.lists(st.lists(st.integers(0, 60), max_size=6).map(tuple), max_size=12).map(
    lambda groups: [tuple(number * 100 + place for number in group) for place, group in enumerate(groups)]
)


@given(OPTIONS, st.data())
def test_all_goes_that_nothing_needs(groups: list[tuple[int, ...]], data: st.DataObject) -> None:
    every = {each for group in groups for each in group}
    needed = data.draw(st.sets(st.sampled_from(sorted(every)))) if every else set()
    removed: list[int] = []
    search.remove(groups, lambda less: not needed & set(less), removed)
    assert set(removed) == every - needed


@given(OPTIONS, st.data())
def test_no_more_groups_are_added_than_are_needed(groups: list[tuple[int, ...]], data: st.DataObject) -> None:
    every = {each for group in groups for each in group}
    needed = data.draw(st.sets(st.sampled_from(sorted(every)))) if every else set()
    asked = []

    def passes(more: tuple[int, ...]) -> bool:
        asked.append(more)
        return needed <= set(more)

    added: list[int] = []
    search.add(groups, passes, added)
    having = [group for group in groups if needed & set(group)]
    assert needed <= set(added) and len(added) <= sum(map(len, having)) + sum(
        len(g) for g in groups if set(g) & set(added)
    )
    assert len(asked) <= 2 + (len(having) + 1) * (2 + math.ceil(math.log2(len(groups) + 1)))


def test_what_was_found_stays_when_the_budget_ends() -> None:
    asked = 0

    def passes(less: tuple[str, ...]) -> bool:
        nonlocal asked
        asked += 1
        if asked > 4:
            raise TimeoutError
        return "b" not in less

    removed: list[str] = []
    groups = [("a",), ("b",), ("c",), ("d",), ()]
    with pytest.raises(TimeoutError):
        search.remove(groups, passes, removed)
    assert removed == ["a"]


@given(OPTIONS, st.data())
def test_all_goes_that_nothing_needs_also_where_most_is_needed(
    groups: list[tuple[int, ...]], data: st.DataObject
) -> None:
    every = {each for group in groups for each in group}
    needed = data.draw(st.sets(st.sampled_from(sorted(every)))) if every else set()
    removed: list[int] = []
    search.remove_each(groups, lambda less: not needed & set(less), removed)
    assert set(removed) == every - needed


def test_where_most_is_needed_each_group_is_asked_about_before_any_is_halved() -> None:
    asked: list[tuple[str, ...]] = []

    def passes(less: tuple[str, ...]) -> bool:
        asked.append(less)
        return not {"a", "d"} & {*less}

    removed: list[str] = []
    search.remove_each([("a", "b"), ("c",), ("d",)], passes, removed)
    assert asked == [("a", "b"), ("c",), ("c", "d"), ("c", "a"), ("c", "b")] and removed == ["c", "b"]
