"""What happens to the store when the disk is full, when a worker is killed, and what a mounted stack looks like."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import signal
import subprocess
import time
import traceback
from collections.abc import Callable

import pytest

from swiftlet.image.tree import materialise
from swiftlet.linux import syscall
from swiftlet.model.closure import closure_of
from swiftlet.model.error import FullError
from swiftlet.store.collect import collect
from swiftlet.store.files import read_json, write_json
from swiftlet.store.guard import sweep
from swiftlet.store.layout import Layout
from swiftlet.store.objects import Objects
from swiftlet.store.records import Records
from swiftlet.store.repair import Repaired, repair
from swiftlet.store.session import Session
from swiftlet.store.verify import verify
from tests.stores import everything, file_entry, flip_byte, folder, new_store, pull, symlink

pytestmark = pytest.mark.root

FORK = multiprocessing.get_context("fork")
CLONE_NEWNS = 0x00020000
MS_REC_PRIVATE = 0x4000 | 0x40000


def in_private_mounts(body: Callable[..., None], *arguments: object) -> None:
    """Run `body` in a child with a mount namespace of its own; its failure is the test's."""

    def child() -> None:
        try:
            syscall.unshare(CLONE_NEWNS)
            syscall.mount("none", "/", "", MS_REC_PRIVATE)
            body(*arguments)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)

    process = FORK.Process(target=child)
    process.start()
    process.join()
    assert process.exitcode == 0


# a full disk


def store_on_small_disk(folder: str, kibibytes: int) -> Layout:
    syscall.mount("tmpfs", folder, "tmpfs", 0, f"size={kibibytes}k,mode=755")
    return new_store(f"{folder}/store")


def _fill_with_pulls(folder: str) -> None:
    layout = store_on_small_disk(folder, 2048)
    chooser = random.Random(1)
    kept = []
    with pytest.raises(FullError, match="no space left"):
        for number in range(1000):
            files = {f"/{n}": chooser.randbytes(20_000) for n in range(5)}
            with Session(layout) as session:
                kept.append(pull(session, f"t{number}@1", files).digest)
    assert len(kept) > 5
    assert verify(layout).damaged == []
    for number, digest in enumerate(kept):
        assert Records(layout).lock(f"t{number}@1") == {"closures": [digest]}
        assert os.path.isdir(layout.tree(digest))
    assert not any(name.startswith("session-") for name in os.listdir(layout.tmp))
    Records(layout).remove_lock("t0@1")
    assert collect(layout).trees == 1, "a collection must work on a full disk"
    with Session(layout) as session:
        pull(session, "small@1", {"/small": b"now it fits"})
    assert verify(layout).damaged == []


def test_a_disk_that_fills_up_during_a_pull_loses_nothing_and_a_collection_makes_room(tmp_path):
    in_private_mounts(_fill_with_pulls, str(tmp_path))


def _fill_exactly(folder: str) -> None:
    """Every amount of free space: whichever write it is that fails, nothing half-made stays."""
    layout = store_on_small_disk(folder, 1024)
    with Session(layout) as session:
        pull(session, "base@1", {"/base": b"base"})
    write_json(f"{layout.guests}/state.json", {"old": True})
    full = 0
    for free in range(0, 60, 4):
        ballast = _take_all_but(folder, free)
        try:
            with Session(layout) as session:
                pull(session, f"t{free}@1", {f"/{n}": bytes([free, n]) * 3000 for n in range(4)})
            write_json(f"{layout.guests}/state.json", {"old": False, "large": "x" * 20_000})
        except FullError:
            full += 1
        os.unlink(ballast)
        assert verify(layout).damaged == []
        assert read_json(f"{layout.guests}/state.json")
        assert not [path for path in everything(layout.root) if ".new-" in path or "session-" in path]
        for name in Records(layout).locks():
            Records(layout).lock(name)
    assert full >= 8


def _take_all_but(folder: str, kibibytes: int) -> str:
    path = f"{folder}/ballast"
    space = os.statvfs(folder)
    with open(path, "wb") as file:
        file.write(bytes(max(0, space.f_bavail * space.f_bsize - kibibytes * 1024)))
    return path


def test_whichever_write_the_full_disk_refuses_nothing_half_made_stays(tmp_path):
    in_private_mounts(_fill_exactly, str(tmp_path))


def _objects_on_another_disk(folder: str) -> None:
    layout = new_store(f"{folder}/store")
    syscall.mount("tmpfs", layout.objects, "tmpfs", 0, "mode=700")
    with Session(layout) as session:
        closure = pull(session, "x@1", {"/f": b"content", "/e": b""})
        gone = pull(session, "y@1", {"/g": b"other"}, lock=False)
    assert open(f"{layout.tree(closure.digest)}/f", "rb").read() == b"content"
    assert os.stat(f"{layout.tree(closure.digest)}/f").st_nlink == 1
    assert verify(layout).damaged == []
    assert collect(layout)[:3] == (1, 1, 1) and not os.path.exists(layout.tree(gone.digest))
    flip_byte(f"{layout.tree(closure.digest)}/f", random.Random(1))
    assert repair(layout, verify(layout).damaged) == Repaired(0, 1, 0, 0)


def test_with_the_objects_on_a_disk_of_their_own_trees_hold_copies(tmp_path):
    in_private_mounts(_objects_on_another_disk, str(tmp_path))


def test_ext4_out_of_links_makes_copies_and_a_sound_tree(tmp_path):
    layout = new_store(tmp_path / "store")
    with Session(layout) as session:
        entry = file_entry(session.objects, "/f", b"popular")
        path = session.objects.path(entry.digest)
        os.mkdir(tmp_path / "links")
        try:
            for number in range(70_000):
                os.link(path, tmp_path / "links" / str(number))
        except OSError:
            pass
        else:
            pytest.skip("host lacks: a file system with ext4's limit of links")
        closure = closure_of("popular@1", [entry])
        session.records.save_closure(closure)
        tree = session.trees.build(closure.digest, closure.entries)
    assert os.stat(f"{tree}/f").st_nlink == 1 and open(f"{tree}/f", "rb").read() == b"popular"
    assert verify(layout).damaged == []


# death at any moment


def _work_until_killed(root: str, seed: int) -> None:
    layout = Layout(root)
    chooser = random.Random(seed)
    while True:
        files = {f"/d/{n}": chooser.randbytes(chooser.randrange(200_000)) for n in range(8)}
        with Session(layout) as session:
            pull(session, f"t{chooser.randrange(3)}@1", files)
        if chooser.random() < 0.3:
            collect(layout)


@pytest.mark.crash
def test_a_pull_or_a_collection_killed_at_any_moment_leaves_a_sound_store(tmp_path):
    layout = new_store(tmp_path / "store")
    with Session(layout) as session:
        kept = pull(session, "kept@1", {"/kept": b"kept"})
    chooser = random.Random(99)
    for seed in range(40):
        worker = FORK.Process(target=_work_until_killed, args=(layout.root, seed))
        worker.start()
        time.sleep(chooser.random() * 0.12)
        assert worker.pid
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
        assert worker.exitcode == -signal.SIGKILL
        assert verify(layout).damaged == []
    sweep(layout)
    assert not [name for name in os.listdir(layout.tmp) if name.startswith("session-")]
    for name in Records(layout).locks():
        lock = Records(layout).lock(name)
        assert lock
        closure = Records(layout).closure(lock["closures"][0])
        assert os.path.isdir(layout.tree(closure.digest))
    for name in Records(layout).locks():
        if name != "kept@1":
            Records(layout).remove_lock(name)
    collect(layout)
    assert len([path for path in everything(layout.objects) if "/" in path]) == 1
    assert os.listdir(layout.trees) == [kept.digest]
    assert verify(layout).damaged == []


# what root alone can see


def test_folders_get_their_owners_and_keep_their_set_group_id_bit(tmp_path):
    layout = new_store(tmp_path / "store")
    with Session(layout) as session:
        closure = closure_of("x@1", [folder("/var/lib/db", 0o2770, 101, 102), folder("/", 0o755)])
        session.records.save_closure(closure)
        tree = session.trees.build(closure.digest, closure.entries)
    status = os.stat(f"{tree}/var/lib/db")
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o2770, 101, 102)
    assert verify(layout).damaged == []
    os.chown(f"{tree}/var/lib/db", 0, 0)
    assert [damage.path for damage in verify(layout).damaged] == [f"{tree}/var/lib/db"]


def test_an_object_of_another_owner_or_with_capabilities_is_damaged(tmp_path):
    layout = new_store(tmp_path / "store")
    digest = Objects(layout).put_bytes(b"x", executable=True).digest
    path = layout.object(digest, True)
    os.setxattr(path, "security.capability", bytes.fromhex("0100000202200000000000000000000000000000"))
    assert ["capabilities" in damage.problem for damage in verify(layout).damaged] == [True]
    os.removexattr(path, "security.capability")
    os.chown(path, 1000, 1000)
    assert ["1000" in damage.problem for damage in verify(layout).damaged] == [True]


def _drop_root(path: str) -> None:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    for refused in (
        lambda: os.listdir(path),
        lambda: os.listdir(f"{path}/objects"),
        lambda: os.listdir(f"{path}/trees"),
    ):
        with pytest.raises(PermissionError):
            refused()


def test_other_users_can_list_nothing_of_the_store(tmp_path):
    os.chmod(tmp_path, 0o755)
    layout = new_store(tmp_path / "store")
    in_private_mounts(_drop_root, layout.root)


HOST = ("/usr/bin/bash", "/usr/lib/x86_64-linux-gnu/libc.so.6", "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")


def _bash_with_a_library_in_an_odd_place(session: Session) -> list:
    objects = session.objects

    def host(path: str, place: str = "") -> object:
        fd = os.open(path, os.O_RDONLY)
        try:
            stored = objects.put(fd, executable=True)
        finally:
            os.close(fd)
        entry = file_entry(objects, place or path, b"")
        return type(entry)(place or path, "file", 0o555, stored.digest, stored.size)

    tinfo = os.path.realpath("/usr/lib/x86_64-linux-gnu/libtinfo.so.6")
    return [
        *(host(path) for path in HOST),
        host(tinfo, "/opt/odd/libtinfo.so.6.x"),
        symlink("/opt/odd/libtinfo.so.6", "libtinfo.so.6.x"),
        file_entry(objects, "/etc/ld.so.conf.d/odd.conf", b"# odd\n/opt/odd\n"),
        symlink("/usr/lib64/ld-linux-x86-64.so.2", "../lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"),
    ]


def _chroot_into(lowers: tuple[str, ...], target: str) -> None:
    syscall.mount("overlay", target, "overlay", 0, "lowerdir=" + ":".join(lowers))
    os.chroot(target)
    os.chdir("/")
    script = "read user < /etc/passwd; echo $user; [ -d /proc ] && [ -d /tmp ] && cd /var/lib/x && echo whole"
    done = subprocess.run(["/bin/bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "root:x:0:0:root:/root:/bin/bash\nwhole\n", done.stderr


def test_a_program_in_a_mounted_stack_finds_its_libraries_by_our_loader_cache_alone(tmp_path):
    layout = new_store(tmp_path / "store")
    with Session(layout) as session:
        program = closure_of("bash@1", _bash_with_a_library_in_an_odd_place(session))
        other = closure_of("x@1", [folder("/var/lib/x", 0o700, 101, 101)], users={"x": 101})
        for closure in (program, other):
            session.records.save_closure(closure)
        rootfs = materialise(session, [program, other])
    os.mkdir(tmp_path / "root")
    in_private_mounts(_chroot_into, rootfs.lowers, str(tmp_path / "root"))
    assert verify(layout).damaged == []


def test_the_same_content_in_two_stacks_is_one_inode(tmp_path):
    layout = new_store(tmp_path / "store")
    with Session(layout) as session:
        first = pull(session, "a@1", {"/usr/lib/libx.so.1": b"library", "/a": b"a"})
        second = pull(session, "b@1", {"/opt/libx.so.1": b"library", "/b": b"b"})
    one, two = layout.tree(first.digest), layout.tree(second.digest)
    assert os.path.samefile(f"{one}/usr/lib/libx.so.1", f"{two}/opt/libx.so.1")
    assert hashlib.sha256(open(f"{two}/opt/libx.so.1", "rb").read()).hexdigest() == first.entries[1].digest
