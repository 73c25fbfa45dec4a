"""Verification finds every kind of damage; repair takes it out of use."""

from __future__ import annotations

import os
import random
import shutil

import pytest

from swiftlet.model.closure import closure_of
from swiftlet.model.error import NotFoundError
from swiftlet.store.collect import collect
from swiftlet.store.figures import store_stat
from swiftlet.store.files import write_json
from swiftlet.store.layout import Layout
from swiftlet.store.objects import EMPTY
from swiftlet.store.repair import Repaired, repair
from swiftlet.store.session import Session
from swiftlet.store.verify import verify, verify_trees
from tests.stores import everything, file_entry, flip_byte, folder, new_store, pull, symlink


@pytest.fixture
def layout(tmp_path):
    return new_store(tmp_path / "store")


@pytest.fixture
def closure(layout):
    chooser = random.Random(7)
    with Session(layout) as session:
        files = [
            file_entry(session.objects, f"/d/{n}", chooser.randbytes(chooser.randrange(1, 9000))) for n in range(30)
        ]
        files += [
            file_entry(session.objects, "/bin2/x", b"#!x", executable=True),
            file_entry(session.objects, "/e", b""),
        ]
        closure = closure_of("x@1", [*files, folder("/d", 0o750), symlink("/l", "d/1")])
        session.records.save_closure(closure)
        session.trees.build(closure.digest, closure.entries)
        session.records.save_lock("x@1", {"closures": [closure.digest]})
    return closure


def problems(layout) -> list[tuple[str, str]]:
    return [(os.path.relpath(damage.path, layout.root), damage.problem) for damage in verify(layout).damaged]


def test_a_sound_store_has_no_damage_and_progress_reaches_the_end(layout, closure):
    steps: list[tuple[int, int]] = []
    found = verify(layout, lambda done, total: steps.append((done, total)))
    assert found.damaged == [] and found.checked == 32 + 1 + 1 + 1
    assert steps[-1] == (closure.size, closure.size) and steps == sorted(steps)
    assert verify_trees(layout, [closure.digest]).damaged == []


def test_every_flipped_byte_of_every_object_is_found(layout, closure):
    chooser = random.Random(11)
    files = [entry for entry in closure.entries if entry.size]
    for entry in files:
        path = layout.object(entry.digest, entry.mode == 0o555)
        with open(path, "rb") as file:
            content = file.read()
        flip_byte(path, chooser)
        for found in (verify(layout), verify_trees(layout, [closure.digest])):
            assert [(damage.path, damage.digest) for damage in found.damaged] == [(path, entry.digest)]
        os.chmod(path, 0o600)
        with open(path, "wb") as file:
            file.write(content)
        os.chmod(path, entry.mode)
    assert verify(layout).damaged == []


def test_every_flipped_byte_of_every_file_at_once_is_found(layout, closure):
    chooser = random.Random(12)
    paths = [layout.object(entry.digest, entry.mode == 0o555) for entry in closure.entries if entry.size]
    paths += [layout.closure(closure.digest), f"{layout.locks}/x@1.json"]
    for path in paths:
        flip_byte(path, chooser)
    assert {damage.path for damage in verify(layout).damaged} >= set(paths)


def test_a_truncated_a_lengthened_and_a_missing_object_are_found(layout, closure):
    paths = [layout.object(entry.digest, False) for entry in closure.entries if entry.size and entry.mode == 0o444][:3]
    for path in paths[:2]:
        os.chmod(path, 0o600)
    os.truncate(paths[0], 0)
    with open(paths[1], "ab") as file:
        file.write(b"\0")
    for path in paths[:2]:
        os.chmod(path, 0o444)
    os.unlink(paths[2])
    assert sorted(damage.path for damage in verify(layout).damaged) == sorted(paths)
    assert sorted(damage.path for damage in verify_trees(layout, [closure.digest]).damaged) == sorted(paths)


TAMPERING = {
    "an entry too many": (lambda tree: open(f"{tree}/d/extra", "w").close(), "d/extra", "does not belong"),
    "a folder too many": (lambda tree: os.mkdir(f"{tree}/extra"), "extra", "does not belong"),
    "an entry missing": (lambda tree: os.unlink(f"{tree}/d/3"), "d/3", "is missing"),
    "a folder missing": (lambda tree: shutil.rmtree(f"{tree}/bin2"), "bin2", "is missing"),
    "another target": (lambda tree: (os.unlink(f"{tree}/l"), os.symlink("/etc", f"{tree}/l")), "l", "symbolic link"),
    "a link for a file": (
        lambda tree: (os.unlink(f"{tree}/d/3"), os.symlink("/etc/passwd", f"{tree}/d/3")), "d/3", "not a regular"),
    "a link for a folder": (
        lambda tree: (shutil.rmtree(f"{tree}/bin2"), os.symlink("/bin", f"{tree}/bin2")), "bin2", "is not a folder"),
    "another file": (
        lambda tree: (os.unlink(f"{tree}/d/3"), os.link(f"{tree}/d/4", f"{tree}/d/3")), "d/3", "SHA-256"),
    "another mode": (lambda tree: os.chmod(f"{tree}/d", 0o777), "d", "mode 0777"),
    "an empty file filled": (lambda tree: (os.chmod(f"{tree}/e", 0o600), open(f"{tree}/e", "w").write("x"),
                                           os.chmod(f"{tree}/e", 0o444)), "e", "SHA-256"),
    "an empty file linked": (
        lambda tree: (os.unlink(f"{tree}/e"), os.link(_empty_object(tree), f"{tree}/e")), "e", "2 links"),
    "a device": (lambda tree: (os.unlink(f"{tree}/d/3"), os.mkfifo(f"{tree}/d/3")), "d/3", "not a regular"),
}  # fmt: skip


def _empty_object(tree: str) -> str:
    return Layout(os.path.dirname(os.path.dirname(tree))).object(EMPTY, False)


@pytest.mark.parametrize("case", TAMPERING.values(), ids=TAMPERING)
def test_a_tree_that_is_not_as_its_closure_says_is_found(layout, closure, case):
    tamper, path, problem = case
    tree = layout.tree(closure.digest)
    tamper(tree)
    for found in (verify(layout), verify_trees(layout, [closure.digest])):
        hits = [damage for damage in found.damaged if damage.path == f"{tree}/{path}" and problem in damage.problem]
        assert hits and hits[0].digest == closure.digest
    repair(layout, verify(layout).damaged)
    with Session(layout) as session:
        session.trees.build(closure.digest, closure.entries)
    assert verify(layout).damaged == []


def test_a_stranger_in_the_store_is_found_and_repair_removes_it(layout, closure):
    for path in ("objects/zz", "objects/ab", "trees/hello", "closures/x.json"):
        os.makedirs(f"{layout.root}/{os.path.dirname(path)}", exist_ok=True)
        with open(f"{layout.root}/{path}", "w") as file:
            file.write("x")
    found = verify(layout)
    assert len(found.damaged) == 4
    repair(layout, found.damaged)
    assert verify(layout).damaged == []


def test_repair_of_a_damaged_object_takes_all_that_rests_on_it_out_of_use(layout, closure):
    with Session(layout) as session:
        other = pull(session, "other@1", {"/o": b"other"})
    entry = next(entry for entry in closure.entries if entry.size)
    flip_byte(layout.object(entry.digest, entry.mode == 0o555), random.Random(5))
    assert repair(layout, verify(layout).damaged) == Repaired(1, 1, 1, 1)
    assert verify(layout).damaged == []
    with Session(layout) as session:
        assert session.records.locks() == ["other@1"] and session.records.closures() == [other.digest]
        assert session.records.lock("x@1") is None
        assert not session.objects.has(entry.digest, entry.mode == 0o555)
    assert collect(layout).objects == 31
    assert store_stat(layout).trees == 1


def test_repair_of_a_damaged_closure_leads_to_a_new_resolution(layout, closure):
    flip_byte(layout.closure(closure.digest), random.Random(6))
    assert repair(layout, verify(layout).damaged) == Repaired(0, 1, 1, 1)
    with Session(layout) as session, pytest.raises(NotFoundError):
        session.records.closure(closure.digest)
    assert verify(layout).damaged == []


def test_repair_leaves_a_running_guest_its_tree_and_nothing_new_starts_from_it(layout, closure):
    os.makedirs(f"{layout.guests}/g1")
    write_json(f"{layout.guests}/g1/bundle.json", {"rootfs": {"trees": [closure.digest]}})
    mounted = os.open(layout.tree(closure.digest), os.O_PATH)
    entry = closure.entries[3]
    flip_byte(layout.object(entry.digest, entry.mode == 0o555), random.Random(5))
    repair(layout, verify(layout).damaged)
    assert everything(f"{layout.tree(closure.digest)}.damaged") and not os.path.exists(layout.tree(closure.digest))
    assert os.stat("d/1", dir_fd=mounted)
    collect(layout)
    assert os.stat("d/1", dir_fd=mounted)
    os.close(mounted)
    os.unlink(f"{layout.guests}/g1/bundle.json")
    collect(layout)
    assert os.listdir(layout.trees) == []


def test_figures_count_what_is_there_and_what_sharing_saves(layout):
    with Session(layout) as session:
        for name in "abc":
            pull(session, f"{name}@1", {"/shared": b"12345678", f"/{name}": name.encode()})
    figures = store_stat(layout)
    assert (figures.objects, figures.object_bytes, figures.trees, figures.closures) == (4, 11, 3, 3)
    assert figures.shared_bytes == 16 and figures.guests == 0


def test_repair_leaves_alone_what_was_put_right_since_the_verification(layout, closure):
    entry = next(entry for entry in closure.entries if entry.size)
    with open(layout.object(entry.digest, entry.mode == 0o555), "rb") as file:
        content = file.read()
    flip_byte(layout.object(entry.digest, entry.mode == 0o555), random.Random(5))
    flip_byte(layout.closure(closure.digest), random.Random(5))
    damaged = verify(layout).damaged
    with Session(layout) as session:
        session.objects.put_bytes(content, executable=entry.mode == 0o555)
        session.records.save_closure(closure)
        assert repair(layout, damaged)[:1] + repair(layout, damaged)[2:] == (0, 0, 0)
        session.trees.build(closure.digest, closure.entries)
    repair(layout, verify(layout).damaged)
    with Session(layout) as session:
        session.trees.build(closure.digest, closure.entries)
    assert verify(layout).damaged == []
