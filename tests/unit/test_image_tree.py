"""Closures become a Rootfs: trees that are there, stacked in order, quickly."""

from __future__ import annotations

import os
import time

import pytest

from swiftlet.image.tree import Stacks, materialise
from swiftlet.model.closure import Entry, closure_of
from swiftlet.model.error import InputError, NotFoundError
from swiftlet.store.collect import collect
from swiftlet.store.files import write_json
from swiftlet.store.guard import pin
from swiftlet.store.records import Records
from swiftlet.store.session import Session
from swiftlet.store.verify import verify
from tests.stores import file_entry, new_store, pull, symlink


@pytest.fixture
def layout(tmp_path):
    return new_store(tmp_path / "store")


@pytest.fixture
def pair(layout):
    with Session(layout) as session:
        upper = closure_of("a@1", [file_entry(session.objects, "/a", b"a")], env={"PATH": "/a", "A": "1"})
        lower = closure_of("b@1", [file_entry(session.objects, "/b", b"b")], env={"PATH": "/b", "B": "2"},
                           entrypoint=("b", "-x"))  # fmt: skip
        for closure in (upper, lower):
            session.records.save_closure(closure)
            session.records.save_lock(closure.template, {"closures": [closure.digest]})
    return [upper, lower]


def test_a_rootfs_stacks_the_composition_on_the_closures_in_their_order(layout, pair):
    rootfs = Stacks(layout).materialise(pair)
    assert rootfs.trees[1:] == tuple(closure.digest for closure in pair)
    assert rootfs.lowers == tuple(layout.tree(digest) for digest in rootfs.trees)
    assert os.readlink(f"{rootfs.lowers[0]}/bin") == "usr/bin"
    assert open(f"{rootfs.lowers[1]}/a").read() == "a" and open(f"{rootfs.lowers[2]}/b").read() == "b"
    assert rootfs.env == {"PATH": "/a", "A": "1", "B": "2"} and rootfs.entrypoint == ("b", "-x")
    assert verify(layout).damaged == []


def test_equal_stacks_share_their_composition(layout, pair):
    with Session(layout) as session:
        third = pull(session, "c@1", {"/c": b"c"})
        trees = {materialise(session, stack).trees[0] for stack in (pair, pair[:1], [*pair, third])}
    assert len(trees) == 1


def test_a_closure_without_files_and_one_that_comes_twice_make_no_layer_of_their_own(layout, pair):
    with Session(layout) as session:
        meta = closure_of("meta@1", [], requires=("a@1",), env={"M": "1"})
        rootfs = materialise(session, [meta, *pair, pair[0]])
    assert rootfs.trees[1:] == tuple(closure.digest for closure in pair) and rootfs.env["M"] == "1"


def test_a_stack_that_was_built_before_takes_less_than_a_millisecond(layout, pair):
    stacks = Stacks(layout)
    first = stacks.materialise(pair)
    samples = []
    for _ in range(100):
        started = time.monotonic()
        assert stacks.materialise(pair) is first
        samples.append(time.monotonic() - started)
    assert sorted(samples)[50] < 0.001


def test_a_collected_composition_is_noticed_at_the_pin_and_made_again(layout, pair):
    stacks = Stacks(layout)
    rootfs = stacks.materialise(pair)
    assert collect(layout).trees == 1
    with pytest.raises(NotFoundError), pin(layout, rootfs.trees):
        raise AssertionError
    assert stacks.materialise(pair) == rootfs
    os.mkdir(f"{layout.guests}/g1")
    with pin(layout, rootfs.trees):
        write_json(f"{layout.guests}/g1/bundle.json", {"rootfs": {"trees": list(rootfs.trees)}})
    assert collect(layout).trees == 0
    assert verify(layout).damaged == []


def test_a_stack_whose_files_were_lost_says_which(layout):
    with Session(layout) as session:
        closure = pull(session, "a@1", {"/a": b"a"}, lock=False)
    collect(layout)
    with pytest.raises(NotFoundError, match="/a"):
        Stacks(layout).materialise([closure])


@pytest.mark.parametrize("path", ["/bin/sh", "/lib64/x", "/../x", "relative", "/a//b", "/a\0"])
def test_a_path_that_is_not_canonical_is_refused(layout, path):
    enemy = closure_of("enemy@1", [Entry(path, "symlink", 0o777, target="x")])
    with pytest.raises(InputError):
        Stacks(layout).materialise([enemy])


@pytest.mark.parametrize("target", ["a\0b", "", "x" * 5000])
def test_a_link_that_cannot_be_is_refused_before_it_is_composed(layout, target):
    enemy = closure_of("enemy@1", [symlink("/usr/lib/libx.so.1", target)])
    with pytest.raises(InputError):
        Stacks(layout).materialise([enemy])
    assert os.listdir(layout.trees) == [] and Records(layout).closures() == []


def test_directories_of_the_loaders_configuration_are_read_from_the_store(layout):
    with Session(layout) as session:
        entries = [file_entry(session.objects, "/etc/ld.so.conf.d/x.conf", b"/opt/x\n"),
                   file_entry(session.objects, "/opt/x/libx.so.1", b"ELF")]  # fmt: skip
        closure = closure_of("x@1", entries)
        rootfs = materialise(session, [closure])
    assert b"libx.so.1\0/opt/x/libx.so.1\0" in open(f"{rootfs.lowers[0]}/etc/ld.so.cache", "rb").read()


def test_a_closure_that_was_never_saved_gets_a_record_so_that_its_tree_can_be_verified(layout):
    with Session(layout) as session:
        closure = closure_of("sandbox", [file_entry(session.objects, "/a", b"a")])
        materialise(session, [closure])
    assert Records(layout).has_closure(closure.digest) and verify(layout).damaged == []
