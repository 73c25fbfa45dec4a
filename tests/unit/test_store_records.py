"""Closures and locks: kept whole, found by name, never believed when damaged."""

from __future__ import annotations

import os
import random

import pytest

from swiftlet.model.closure import Closure, Entry, closure_of
from swiftlet.model.error import CorruptError, InputError, NotFoundError
from swiftlet.store.records import Records
from tests.stores import flip_byte, new_store

LINK = Entry("/usr/bin/x", "symlink", 0o777, target="y", source="deb:x=1", why="asked for")


@pytest.fixture
def layout(tmp_path):
    return new_store(tmp_path / "store")


@pytest.fixture
def records(layout):
    return Records(layout)


def example() -> Closure:
    return closure_of("x@1", [LINK], requires=("y@2",), env={"A": "ä"}, entrypoint=("x",), users={"x": 101})


def test_a_closure_comes_back_as_it_was_saved(records):
    closure = example()
    records.save_closure(closure)
    assert records.closure(closure.digest) == closure
    assert records.closures() == [closure.digest] and records.has_closure(closure.digest)


def test_two_templates_with_the_same_files_and_other_variables_are_two_closures(records):
    first, second = closure_of("a@1", [LINK], env={"X": "1"}), closure_of("a@1", [LINK], env={"X": "2"})
    records.save_closure(first)
    records.save_closure(second)
    assert records.closure(first.digest).env == {"X": "1"} and records.closure(second.digest).env == {"X": "2"}


def test_a_closure_that_lies_about_its_digest_is_not_saved(records):
    with pytest.raises(InputError, match="x@1"):
        records.save_closure(Closure("x@1", "a" * 64, (LINK,)))
    assert records.closures() == []


def test_a_closure_whose_files_are_not_stored_is_not_saved(records):
    with pytest.raises(NotFoundError, match="/f"):
        records.save_closure(closure_of("x@1", [Entry("/f", "file", 0o444, "a" * 64, 1)]))
    assert records.closures() == []


def test_a_closure_under_anothers_name_is_corrupt(layout, records):
    closure = example()
    records.save_closure(closure)
    os.rename(layout.closure(closure.digest), layout.closure("a" * 64))
    with pytest.raises(CorruptError, match="another closure"):
        records.closure("a" * 64)


def test_every_flipped_bit_of_a_closure_or_a_lock_is_found(layout, records):
    closure = example()
    chooser = random.Random(3)
    for _ in range(50):
        records.save_closure(closure)
        records.save_lock("x@1", {"closure": closure.digest})
        flip_byte(layout.closure(closure.digest), chooser)
        flip_byte(records.lock_path("x@1"), chooser)
        with pytest.raises(CorruptError):
            records.closure(closure.digest)
        with pytest.raises(CorruptError):
            records.lock("x@1")


@pytest.mark.parametrize(
    "name",
    ["python@3.11", "deb:redis-server=5:7.0.15-1~deb12u5", "host:/usr/bin/x", "../../etc/passwd", "..", ".hidden",
     "a b\n\0ü", "%2E", "x" * 240],
)  # fmt: skip
def test_a_lock_of_any_name_lies_in_its_folder_and_is_found_again(layout, records, name):
    records.save_lock(name, {"a": [1, "ü"]})
    assert records.lock(name) == {"a": [1, "ü"]} and records.locks() == [name]
    assert len(os.listdir(layout.locks)) == 1 and os.path.dirname(records.lock_path(name)) == layout.locks
    assert records.remove_lock(name) and not records.remove_lock(name)
    assert records.lock(name) is None


@pytest.mark.parametrize("name", ["", "x" * 241, "/" * 100, "\udcff"])
def test_a_name_that_fits_no_file_is_refused(records, name):
    with pytest.raises(InputError, match="name"):
        records.save_lock(name, {})


def test_saving_a_lock_again_replaces_it_and_leaves_nothing_else(layout, records):
    for number in range(3):
        records.save_lock("x@1", {"n": number})
    assert records.lock("x@1") == {"n": 2}
    assert os.listdir(layout.locks) == ["x@1.json"]
    assert not [name for name in os.listdir(layout.tmp) if name.startswith("session-")]
