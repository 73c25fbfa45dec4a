"""Collection: removes what nothing needs and nothing else, also while others work."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time

import pytest

from swiftlet.model.error import ConflictError, NotFoundError
from swiftlet.store.collect import Collected, collect
from swiftlet.store.figures import store_stat
from swiftlet.store.files import write_json
from swiftlet.store.guard import collecting, parse_notes, pin, sweep
from swiftlet.store.layout import Layout
from swiftlet.store.objects import Objects
from swiftlet.store.records import Records
from swiftlet.store.session import Session
from swiftlet.store.verify import verify
from tests.stores import everything, new_store, pull

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def layout(tmp_path):
    return new_store(tmp_path / "store")


def guest(layout: Layout, name: str, trees: list[str]) -> None:
    os.makedirs(f"{layout.guests}/{name}", exist_ok=True)
    with pin(layout, trees):
        write_json(f"{layout.guests}/{name}/bundle.json", {"rootfs": {"trees": trees}})


def sessions(layout: Layout) -> list[str]:
    return [name for name in os.listdir(layout.tmp) if name.startswith("session-")]


def test_an_empty_store_has_nothing_to_collect(layout):
    assert collect(layout) == Collected(0, 0, 0, 0)


def test_what_a_lock_names_stays_and_the_rest_goes(layout):
    with Session(layout) as session:
        kept = pull(session, "kept@1", {"/a": b"kept", "/b": b"shared"})
        gone = pull(session, "gone@1", {"/a": b"gone", "/b": b"shared"}, lock=False)
    record = os.path.getsize(layout.closure(gone.digest))
    assert collect(layout) == Collected(1, 1, 1, 4 + record)
    assert Records(layout).closures() == [kept.digest] and os.listdir(layout.trees) == [kept.digest]
    assert verify(layout).damaged == []
    assert collect(layout) == Collected(0, 0, 0, 0)


def test_a_dry_run_counts_the_same_and_removes_nothing(layout):
    with Session(layout) as session:
        pull(session, "kept@1", {"/a": b"kept"})
        pull(session, "gone@1", {"/a": b"gone", "/e": b""}, lock=False)
    before = everything(layout.root)
    counted = collect(layout, dry_run=True)
    assert everything(layout.root) == before
    assert collect(layout) == counted


def test_removing_a_lock_frees_what_only_it_named(layout):
    with Session(layout) as session:
        pull(session, "a@1", {"/a": b"a", "/b": b"shared"})
        pull(session, "b@1", {"/a": b"b", "/b": b"shared"})
    Records(layout).remove_lock("a@1")
    assert collect(layout)[:3] == (1, 1, 1)
    assert store_stat(layout).objects == 2


def test_what_a_guest_names_stays_until_the_guest_is_gone(layout):
    with Session(layout) as session:
        closure = pull(session, "x@1", {"/a": b"x"}, lock=False)
        guest(layout, "g1", [closure.digest])
    assert collect(layout) == Collected(0, 0, 0, 0)
    assert verify(layout).damaged == []
    os.unlink(f"{layout.guests}/g1/bundle.json")
    assert collect(layout)[:3] == (1, 1, 1)


def test_a_damaged_root_keeps_what_can_still_be_read_in_it(layout):
    with Session(layout) as session:
        closure = pull(session, "x@1", {"/a": b"x"})
    with open(Records(layout).lock_path("x@1"), "ab") as file:
        file.write(b"\xff{[")
    assert collect(layout) == Collected(0, 0, 0, 0) and os.listdir(layout.trees) == [closure.digest]


def test_an_object_that_still_has_a_link_in_a_tree_stays(layout):
    with Session(layout) as session:
        entry = pull(session, "x@1", {"/a": b"x"}, lock=False)
        guest(layout, "g1", [entry.digest])
    os.unlink(layout.closure(entry.digest))
    assert collect(layout).objects == 0


def test_whatever_a_live_session_put_or_asked_for_stays(layout):
    old = Objects(layout).put_bytes(b"old").digest
    with Session(layout) as session:
        pulled = pull(session, "x@1", {"/a": b"x", "/b": b"y"}, lock=False)
    with Session(layout) as session:
        new = session.objects.put_bytes(b"new").digest
        assert session.objects.has(old)
        assert session.records.closure(pulled.digest) == pulled
        session.trees.exists(pulled.digest)
        assert collect(layout) == Collected(0, 0, 0, 0)
        assert Objects(layout).has(new) and Objects(layout).has(old)
    assert collect(layout)[:3] == (4, 1, 1)


def test_what_a_session_asked_for_in_vain_it_was_told_the_truth_about(layout):
    digest = Objects(layout).put_bytes(b"x").digest
    with Session(layout) as session:
        collect(layout)
        assert not session.objects.has(digest)


def test_a_session_that_ends_while_a_collection_runs_leaves_its_notes_until_that_is_over(layout):
    with collecting(layout, 0):
        with Session(layout) as session:
            closure = pull(session, "x@1", {"/a": b"x"})
        assert len(sessions(layout)) == 1
        assert everything(f"{layout.tmp}/{sessions(layout)[0]}") == ["notes"]
    collect(layout)
    assert sessions(layout) == [] and os.listdir(layout.trees) == [closure.digest]


def test_a_start_pins_its_trees_also_while_a_collection_runs(layout):
    with Session(layout) as session:
        closure = pull(session, "x@1", {"/a": b"x"}, lock=False)
    with collecting(layout, 0):
        guest(layout, "g1", [closure.digest])
        assert os.path.exists(f"{layout.tmp}/pins")
    collect(layout)
    assert os.listdir(layout.trees) == [closure.digest] and not os.path.exists(f"{layout.tmp}/pins")


def test_a_start_whose_tree_was_collected_is_told_so(layout):
    with pytest.raises(NotFoundError, match="a" * 64), pin(layout, ["a" * 64]):
        raise AssertionError("the bundle would have been written")


def test_a_collection_and_a_pin_do_not_keep_one_another_waiting(layout):
    started = time.monotonic()
    with pin(layout, []), pytest.raises(ConflictError), collecting(layout, 0.02):
        pass
    with collecting(layout, 0), pin(layout, []):
        pass
    assert time.monotonic() - started < 1


def test_a_pin_costs_a_start_next_to_nothing(layout):
    with Session(layout) as session:
        trees = [pull(session, f"{n}@1", {"/a": str(n).encode()}).digest for n in range(5)]
    samples = []
    for _ in range(200):
        started = time.monotonic()
        with pin(layout, trees):
            pass
        samples.append(time.monotonic() - started)
    assert sorted(samples)[100] < 0.0005


def test_the_cache_goes_only_when_asked_and_never_under_a_pull(layout):
    os.makedirs(f"{layout.cache}/apt/lists")
    with open(f"{layout.cache}/apt/lists/x", "wb") as file:
        file.write(b"12345")
    collect(layout)
    with Session(layout), pytest.raises(ConflictError, match="cache"):
        collect(layout, cache=True)
    assert os.path.exists(f"{layout.cache}/apt/lists/x")
    assert collect(layout, cache=True, dry_run=True).bytes == 5
    assert collect(layout, cache=True).bytes == 5
    assert os.listdir(layout.cache) == []


def test_a_collection_that_was_killed_is_finished_by_the_next(layout):
    with Session(layout) as session:
        closure = pull(session, "x@1", {"/a": b"x"}, lock=False)
        again = pull(session, "x@1", {"/a": b"x"}, lock=False)
    os.rename(layout.tree(closure.digest), layout.tree(closure.digest) + ".removed")
    with Session(layout) as session:
        session.trees.build(again.digest, again.entries)
    assert verify(layout).damaged == []
    collect(layout)
    assert os.listdir(layout.trees) == [] and store_stat(layout).objects == 0


# leftovers


def _die_in_a_session(root: str) -> None:
    session = Session(Layout(root))
    os.mkdir(f"{session.directory}/half")
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_session_left_is_swept_and_what_a_live_one_has_is_not(layout):
    child = FORK.Process(target=_die_in_a_session, args=(layout.root,))
    child.start()
    child.join()
    with Session(layout) as session:
        assert len(sessions(layout)) == 2
        assert sweep(layout) == 1
        assert sessions(layout) == [os.path.basename(session.directory)]


def test_a_sweep_during_a_collection_leaves_its_notes_alone(layout):
    child = FORK.Process(target=_die_in_a_session, args=(layout.root,))
    child.start()
    child.join()
    with collecting(layout, 0):
        assert sweep(layout) == 0
    assert sweep(layout) == 1


def test_something_forgotten_in_tmp_goes_after_a_day(layout):
    for name in ("young", "old"):
        os.makedirs(f"{layout.tmp}/{name}/x")
    os.utime(f"{layout.tmp}/old", (0, 0))
    sweep(layout)
    assert "young" in os.listdir(layout.tmp) and "old" not in os.listdir(layout.tmp)


def test_a_notes_line_cut_short_by_a_full_disk_hides_no_other_line(layout):
    assert parse_notes(b"\n" + b"a" * 30 + b"\n" + b"b" * 64 + b"\n") == {"b" * 64}
    assert parse_notes(b"\n" + b"a" * 30 + b"\n" + b"b" * 64) == {"b" * 64}


# everything at once


def _pull_forever(root: str, seed: int, until: float) -> None:
    """Pull closures over one small pool of files, so that everyone reuses what others put and collections remove."""
    layout = Layout(root)
    chooser = random.Random(seed)
    pools = [random.Random(number).sample(range(120), 25) for number in range(12)]
    while time.monotonic() < until:
        name = f"t{chooser.randrange(6)}@{seed}"
        files = {f"/f{n}": str(n).encode() * 30 for n in chooser.choice(pools)}
        with Session(layout) as session:
            closure = pull(session, "everyones@1", files, lock=False)
            time.sleep(chooser.random() * 0.01)
            assert session.records.closure(closure.digest) == closure
            session.records.save_lock(name, {"closures": [closure.digest]})
        _must_be_whole(layout, closure.digest)
        if chooser.random() < 0.5:
            Records(layout).remove_lock(name)


def _start_forever(root: str, seed: int, until: float) -> None:
    """Start guests from trees that may be collected at any moment, and remove some again."""
    layout = Layout(root)
    chooser = random.Random(seed)
    count = 0
    while time.monotonic() < until:
        trees = [name for name in os.listdir(layout.trees) if len(name) == 64]
        if not trees:
            continue
        name, tree = f"g{seed}-{chooser.randrange(8)}", chooser.choice(trees)
        try:
            guest(layout, name, [tree])
        except NotFoundError:
            continue
        count += 1
        time.sleep(chooser.random() * 0.005)
        assert os.path.isdir(layout.tree(tree)), "a pinned tree was collected"
        if chooser.random() < 0.5:
            os.unlink(f"{layout.guests}/{name}/bundle.json")
    assert count > 5


def _collect_forever(root: str, until: float) -> None:
    removed = 0
    while time.monotonic() < until:
        removed += sum(collect(Layout(root))[:3])
    assert removed > 50


def _verify_forever(root: str, until: float) -> None:
    """What comes and goes meanwhile must never be taken for damage."""
    rounds = 0
    while time.monotonic() < until:
        assert verify(Layout(root)).damaged == []
        rounds += 1
    assert rounds > 3


def _must_be_whole(layout: Layout, digest: str) -> None:
    objects = Objects(layout)
    for entry in Records(layout).closure(digest).entries:
        objects.check(entry.digest)
        assert os.path.exists(layout.tree(digest) + entry.path)


def test_collections_beside_pulls_and_starts_never_take_what_they_need(layout):
    until = time.monotonic() + 4
    workers = [FORK.Process(target=_pull_forever, args=(layout.root, seed, until)) for seed in range(3)]
    workers += [FORK.Process(target=_start_forever, args=(layout.root, seed, until)) for seed in range(10, 12)]
    workers += [FORK.Process(target=_collect_forever, args=(layout.root, until))]
    workers += [FORK.Process(target=_verify_forever, args=(layout.root, until))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 7
    assert verify(layout).damaged == []
    for name in os.listdir(layout.guests):
        try:
            with open(f"{layout.guests}/{name}/bundle.json") as file:
                trees = json.load(file)["rootfs"]["trees"]
        except FileNotFoundError:
            continue
        for tree in trees:
            _must_be_whole(layout, tree)
    collect(layout)
    assert sessions(layout) == []
