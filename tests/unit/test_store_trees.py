"""Trees: what a closure says, made once, shared by inode; an enemy's closure makes nothing."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import stat
import time

import pytest

from swiftlet.model.closure import Entry, closure_of
from swiftlet.model.error import CorruptError, InputError, NotFoundError
from swiftlet.store.layout import Layout
from swiftlet.store.objects import EMPTY, MTIME, Objects
from swiftlet.store.plan import MAX_DEPTH, plan_tree
from swiftlet.store.session import Session
from swiftlet.store.trees import Trees
from swiftlet.store.verify import verify
from tests.stores import everything, file_entry, flip_byte, folder, new_store, pull, symlink

DIGEST = "d" * 64
SOME = "a" * 64


@pytest.fixture
def layout(tmp_path):
    return new_store(tmp_path / "store")


def test_a_tree_holds_what_its_closure_says(layout):
    with Session(layout) as session:
        entries = [
            file_entry(session.objects, "/usr/bin/x", b"program", executable=True),
            file_entry(session.objects, "/etc/x.conf", b"text"),
            folder("/var/lib/x", 0o1770),
            symlink("/usr/bin/y", "x"),
            symlink("/abs", "/etc/shadow"),
        ]
        path = session.trees.build(DIGEST, entries)
    assert everything(path) == sorted(
        ["abs", "etc", "etc/x.conf", "usr", "usr/bin", "usr/bin/x", "usr/bin/y", "var", "var/lib", "var/lib/x"]
    )
    assert os.path.samefile(f"{path}/usr/bin/x", layout.object(entries[0].digest, True))
    assert os.path.samefile(f"{path}/etc/x.conf", layout.object(entries[1].digest, False))
    assert os.readlink(f"{path}/abs") == "/etc/shadow"
    assert stat.S_IMODE(os.stat(f"{path}/var/lib/x").st_mode) == 0o1770
    assert stat.S_IMODE(os.stat(f"{path}/var").st_mode) == 0o755
    assert {os.stat(f"{path}/{name}").st_mtime for name in ("usr", "usr/bin/x", "etc/x.conf")} == {MTIME}


def test_building_again_changes_nothing(layout):
    with Session(layout) as session:
        entries = [file_entry(session.objects, "/f", b"x")]
        path = session.trees.build(DIGEST, entries)
        inode = os.stat(path).st_ino
        assert session.trees.build(DIGEST, entries) == path
        assert os.stat(path).st_ino == inode and session.trees.names() == [DIGEST]


def test_without_a_session_a_tree_is_built_all_the_same(layout):
    objects = Objects(layout)
    trees = Trees(layout, objects)
    path = trees.build(DIGEST, [file_entry(objects, "/f", b"x")])
    assert open(f"{path}/f", "rb").read() == b"x" and trees.exists(DIGEST)


def test_empty_files_are_never_linked(layout):
    with Session(layout) as session:
        entries = [file_entry(session.objects, f"/usr/{name}", b"") for name in "abc"]
        entries.append(file_entry(session.objects, "/usr/x", b"", executable=True))
        path = session.trees.build(DIGEST, entries)
    for name in "abcx":
        assert os.stat(f"{path}/usr/{name}").st_nlink == 1
    assert os.stat(layout.object(EMPTY, False)).st_nlink == 1
    assert stat.S_IMODE(os.stat(f"{path}/usr/x").st_mode) == 0o555
    assert stat.S_IMODE(os.stat(f"{path}/usr/a").st_mode) == 0o444


def test_an_object_out_of_links_is_copied_and_the_tree_is_sound(layout):
    with Session(layout) as session:
        trees = Trees(layout, session.objects, max_links=3)
        content = b"popular" * 1000
        entries = [file_entry(session.objects, f"/{number}", content) for number in range(5)]
        closure = closure_of("popular@1", entries)
        session.records.save_closure(closure)
        path = trees.build(closure.digest, closure.entries)
    links = sorted(os.stat(f"{path}/{number}").st_nlink for number in range(5))
    assert links == [1, 1, 1, 3, 3]
    assert {open(f"{path}/{number}", "rb").read() for number in range(5)} == {content}
    assert {stat.S_IMODE(os.stat(f"{path}/{number}").st_mode) for number in range(5)} == {0o444}
    assert verify(layout).damaged == []


def test_a_missing_object_is_named_and_nothing_of_the_tree_stays(layout):
    with Session(layout) as session:
        good = file_entry(session.objects, "/a", b"x")
        with pytest.raises(NotFoundError, match=rf"/b \({SOME}\)"):
            session.trees.build(DIGEST, [good, Entry("/b", "file", 0o444, SOME)])
        assert session.trees.names() == []
    assert not any("session-" in path for path in everything(layout.tmp))
    assert os.stat(layout.object(good.digest, False)).st_nlink == 1


def test_a_damaged_object_never_gets_into_a_tree(layout):
    with Session(layout) as session:
        entry = file_entry(session.objects, "/a", b"content")
    flip_byte(layout.object(entry.digest, False), random.Random(0))
    with Session(layout) as session, pytest.raises(CorruptError):
        session.trees.build(DIGEST, [entry])
    assert os.listdir(layout.trees) == []


FILE = Entry("/f", "file", 0o444, SOME)

ENEMIES = {
    "climbs": [Entry("/../outside", "file", 0o444, SOME)],
    "climbs inside": [Entry("/a/../../outside", "file", 0o444, SOME)],
    "relative": [Entry("outside", "file", 0o444, SOME)],
    "empty path": [Entry("", "file", 0o444, SOME)],
    "double slash": [Entry("//etc/passwd", "file", 0o444, SOME)],
    "slash at the end": [Entry("/a/", "directory")],
    "dot": [Entry("/./a", "file", 0o444, SOME)],
    "nul": [Entry("/a\0b", "file", 0o444, SOME)],
    "not utf-8": [Entry("/a\udcff", "file", 0o444, SOME)],
    "too long a name": [Entry("/" + "x" * 256, "file", 0o444, SOME)],
    "too long a path": [Entry("/x" * 2100, "file", 0o444, SOME)],
    "too deep": [Entry("/x" * (MAX_DEPTH + 1), "file", 0o444, SOME)],
    "below a symbolic link": [symlink("/a", "/etc"), Entry("/a/passwd", "file", 0o444, SOME)],
    "below a symbolic link, deeper": [symlink("/a", ".."), folder("/a/b"), Entry("/a/b/c", "file", 0o444, SOME)],
    "below a symbolic link that comes later": [Entry("/a/passwd", "file", 0o444, SOME), symlink("/a", "/etc")],
    "a folder that is a symbolic link": [symlink("/a", "/etc"), folder("/a")],
    "below a file": [FILE, Entry("/f/g", "file", 0o444, SOME)],
    "twice": [FILE, FILE],
    "a folder twice": [folder("/d", 0o755), folder("/d", 0o777)],
    "root as a link": [symlink("/", "/etc")],
    "root as a file": [Entry("/", "file", 0o444, SOME)],
    "set-uid": [Entry("/su", "file", 0o4555, SOME)],
    "set-gid": [Entry("/su", "file", 0o2555, SOME)],
    "writable": [Entry("/w", "file", 0o644, SOME)],
    "a file of another": [Entry("/o", "file", 0o444, SOME, uid=1000)],
    "a set-uid folder": [folder("/d", 0o4755)],
    "type bits in a mode": [folder("/d", 0o60000)],
    "no such owner": [folder("/d", 0o755, -1, 0)],
    "no such group": [folder("/d", 0o755, 0, 1 << 32)],
    "a digest that climbs": [Entry("/f", "file", 0o444, "../../../etc/shadow")],
    "no digest": [Entry("/f", "file", 0o444)],
    "no target": [symlink("/l", "")],
    "a nul in a target": [symlink("/l", "a\0b")],
    "too long a target": [symlink("/l", "x" * 5000)],
}


@pytest.mark.parametrize("entries", ENEMIES.values(), ids=ENEMIES)
def test_an_enemys_closure_is_refused_before_anything_is_made(layout, entries):
    with Session(layout) as session:
        before = everything(layout.root)
        with pytest.raises(InputError):
            session.trees.build(DIGEST, entries)
        assert everything(layout.root) == before


def test_a_plan_does_not_depend_on_the_order_of_its_entries():
    entries = [folder("/a/b", 0o700), folder("/a", 0o711), Entry("/a/b/c", "file", 0o444, SOME), symlink("/l", "x")]
    assert plan_tree(entries) == plan_tree(list(reversed(entries)))


def _build(root: str, entries: list[Entry], start: object) -> None:
    start.wait()
    with Session(Layout(root)) as session:
        session.trees.build(DIGEST, entries)


def test_builders_of_the_same_tree_at_the_same_time_all_succeed(layout):
    with Session(layout) as session:
        entries = [file_entry(session.objects, f"/d{n % 7}/{n}", str(n).encode()) for n in range(300)]
        context = multiprocessing.get_context("fork")
        start = context.Event()
        builders = [context.Process(target=_build, args=(layout.root, entries, start)) for _ in range(6)]
        for builder in builders:
            builder.start()
        start.set()
        for builder in builders:
            builder.join()
        assert [builder.exitcode for builder in builders] == [0] * 6
    assert len(everything(layout.tree(DIGEST))) == 307
    assert {os.stat(layout.object(entry.digest, False)).st_nlink for entry in entries} == {2}
    assert not any("session-" in name for name in os.listdir(layout.tmp))


def test_a_tree_of_2000_files_is_built_well_within_a_second(layout):
    files = {f"/usr/lib/python3/p{n % 40}/m{n}.py": str(n).encode() * 200 for n in range(2000)}
    with Session(layout) as session:
        closure = pull(session, "big@1", files)
    session = Session(layout)
    remove_tree(layout, closure.digest)
    started = time.monotonic()
    session.trees.build(closure.digest, closure.entries)  # a new session: every object is read again
    spent = time.monotonic() - started
    session.close()
    assert spent < 1.0


def remove_tree(layout, digest: str) -> None:
    shutil.rmtree(layout.tree(digest))
