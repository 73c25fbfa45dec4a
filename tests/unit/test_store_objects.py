"""Objects and files: whole or not there, read-only, checked."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import stat
import threading

import pytest

from swiftlet.model.error import ConflictError, CorruptError, HostError, InputError, NotFoundError
from swiftlet.store import files
from swiftlet.store.guard import collecting
from swiftlet.store.layout import Layout, digests_in, parse_object
from swiftlet.store.objects import EMPTY, MTIME, Objects
from swiftlet.store.session import Session
from tests.stores import everything, flip_byte, new_store


@pytest.fixture
def layout(tmp_path):
    return new_store(tmp_path / "store")


@pytest.fixture
def objects(layout):
    return Objects(layout)


def source_of(tmp_path, content: bytes) -> int:
    path = tmp_path / "source"
    path.write_bytes(content)
    os.chmod(path, 0o6777)
    return os.open(path, os.O_RDONLY)


@pytest.mark.parametrize("size", [0, 1, 4096, (1 << 20) - 1, 1 << 20, (3 << 20) + 17])
def test_what_is_put_is_there_by_its_digest_and_can_never_be_written(objects, tmp_path, size):
    content = random.Random(size).randbytes(size)
    fd = source_of(tmp_path, content)
    stored = objects.put(fd)
    os.close(fd)
    assert stored == (hashlib.sha256(content).hexdigest(), size, False)
    path = objects.path(stored.digest)
    status = os.stat(path)
    assert open(path, "rb").read() == content
    assert stat.S_IMODE(status.st_mode) == 0o444
    assert (status.st_uid, status.st_nlink, status.st_mtime) == (os.geteuid(), 1, MTIME)


def test_a_member_of_an_archive_is_stored_without_what_is_around_it(objects, tmp_path):
    fd = source_of(tmp_path, b"head" + b"body" + b"tail")
    stored = objects.put(fd, offset=4, size=4)
    os.close(fd)
    assert open(objects.path(stored.digest), "rb").read() == b"body"


def test_the_executable_and_the_plain_object_are_two_inodes_of_one_digest(objects):
    plain = objects.put_bytes(b"x")
    executable = objects.put_bytes(b"x", executable=True)
    assert plain.digest == executable.digest and not executable.reused
    assert stat.S_IMODE(os.stat(objects.path(plain.digest, True)).st_mode) == 0o555
    assert not os.path.samefile(objects.path(plain.digest), objects.path(plain.digest, True))


def test_putting_the_same_again_reuses_the_object(objects, tmp_path):
    first = objects.put_bytes(b"same")
    inode = os.stat(objects.path(first.digest)).st_ino
    fd = source_of(tmp_path, b"same")
    assert objects.put(fd).reused
    assert objects.put(fd, expected=first.digest).reused
    os.close(fd)
    assert os.stat(objects.path(first.digest)).st_ino == inode


@pytest.mark.parametrize("present", [False, True])
def test_a_wrong_digest_is_refused_and_nothing_stays(layout, objects, tmp_path, present):
    if present:
        objects.put_bytes(b"right")
    before = everything(layout.root)
    fd = source_of(tmp_path, b"wrong")
    with pytest.raises(CorruptError, match="was expected"):
        objects.put(fd, expected=hashlib.sha256(b"right").hexdigest())
    with pytest.raises(CorruptError):
        objects.put_bytes(b"wrong", expected=hashlib.sha256(b"right").hexdigest())
    os.close(fd)
    assert everything(layout.root) == before


def test_a_source_that_ends_too_early_is_refused_and_nothing_stays(layout, objects, tmp_path):
    fd = source_of(tmp_path, b"short")
    before = everything(layout.root)
    with pytest.raises(CorruptError, match="ends after 5 of 6"):
        objects.put(fd, size=6)
    os.close(fd)
    assert everything(layout.root) == before


def test_a_damaged_object_is_found_when_used_and_replaced_when_put_again(layout):
    digest = Objects(layout).put_bytes(b"precious" * 100).digest
    path = layout.object(digest, False)
    flip_byte(path, random.Random(1))
    with pytest.raises(CorruptError, match=digest[2:]):
        Objects(layout).check(digest)
    assert not Objects(layout).put_bytes(b"precious" * 100).reused
    Objects(layout).check(digest)
    assert everything(layout.tmp) == []


def test_an_object_with_a_write_bit_or_a_set_uid_bit_is_damaged(layout):
    digest = Objects(layout).put_bytes(b"x").digest
    for mode in (0o644, 0o4444, 0o555):
        os.chmod(layout.object(digest, False), mode)
        with pytest.raises(CorruptError, match="mode"):
            Objects(layout).check(digest)


def test_a_symbolic_link_in_the_place_of_an_object_is_never_followed(layout, tmp_path):
    digest = hashlib.sha256(b"x").hexdigest()
    (tmp_path / "elsewhere").write_bytes(b"x")
    os.mkdir(f"{layout.objects}/{digest[:2]}")
    os.symlink(tmp_path / "elsewhere", layout.object(digest, False))
    with pytest.raises((CorruptError, NotFoundError, files.StoreError)):
        Objects(layout).check(digest)


@pytest.mark.parametrize("digest", ["", "..", "ab/../../etc/passwd", "A" * 64, "a" * 63, "a" * 65, "a" * 64 + "\n"])
def test_what_is_no_digest_never_becomes_a_path(layout, objects, digest):
    for ask in (objects.path, objects.has, objects.open, objects.check, layout.tree, layout.closure):
        with pytest.raises(InputError):
            ask(digest)


def test_a_missing_object_is_not_found(objects):
    assert not objects.has("a" * 64)
    with pytest.raises(NotFoundError):
        objects.open("a" * 64)


def test_the_empty_file_has_the_digest_of_nothing(objects):
    assert objects.put_bytes(b"").digest == EMPTY


def test_threads_may_put_the_same_files_at_once(layout):
    contents = [str(number).encode() * 50 for number in range(60)]
    with Session(layout) as session:
        threads = [
            threading.Thread(target=lambda: [session.objects.put_bytes(content) for content in contents])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for content in contents:
            session.objects.check(hashlib.sha256(content).hexdigest())
    assert len([path for path in everything(layout.objects) if "/" in path]) == 60


# files


def test_a_reader_sees_the_old_file_or_the_new_one_and_never_a_part(tmp_path):
    path = str(tmp_path / "state.json")
    old, new = {"n": "a" * 300_000}, {"n": "b" * 300_000}
    files.write_json(path, old)
    stop = threading.Event()
    seen = set()

    def read():
        while not stop.is_set():
            seen.add(files.read_json(path)["n"])

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(60):
        files.write_json(path, old if turn % 2 else new)
    stop.set()
    reader.join()
    assert seen <= {old["n"], new["n"]} and os.listdir(tmp_path) == ["state.json"]


def test_the_mode_is_the_one_asked_for_whatever_the_umask(tmp_path):
    old = os.umask(0o777)
    try:
        files.write_atomic(str(tmp_path / "f"), b"x", 0o640)
    finally:
        os.umask(old)
    assert stat.S_IMODE(os.stat(tmp_path / "f").st_mode) == 0o640


def test_replacing_a_folder_by_a_file_fails_and_leaves_both_as_they_were(tmp_path):
    (tmp_path / "d" / "inside").mkdir(parents=True)
    with pytest.raises(files.StoreError):
        files.write_atomic(str(tmp_path / "d"), b"x")
    assert everything(str(tmp_path)) == ["d", "d/inside"]


def test_a_broken_json_file_is_corrupt_and_a_missing_one_not_found(tmp_path):
    (tmp_path / "f").write_bytes(b'{"half": ')
    with pytest.raises(CorruptError, match="f is not JSON"):
        files.read_json(str(tmp_path / "f"))
    with pytest.raises(NotFoundError):
        files.read_json(str(tmp_path / "g"))
    (tmp_path / "f").write_bytes(b"[" * 100_000)
    with pytest.raises(CorruptError):
        files.read_json(str(tmp_path / "f"))


def test_every_changed_byte_of_a_sealed_file_is_noticed():
    document = files.seal({"name": "x", "list": [1, 2, 3]})
    assert files.unseal(document, "p") == b'{"name":"x","list":[1,2,3]}'
    for offset in range(len(document)):
        broken = bytearray(document)
        broken[offset] ^= 1
        with pytest.raises(CorruptError, match="p is damaged"):
            files.unseal(bytes(broken), "p")
    for length in range(len(document)):
        with pytest.raises(CorruptError):
            files.unseal(document[:length], "p")


def test_a_full_disk_has_a_name_and_a_hint():
    error = files.store_error(OSError(errno.ENOSPC, "x"), "/store")
    assert isinstance(error, files.FullError) and "/store" in str(error) and "gc" in error.hint
    assert isinstance(files.store_error(OSError(errno.EDQUOT, "x"), "/store"), files.FullError)


# layout


def test_others_can_pass_the_root_and_list_nothing(tmp_path):
    layout = new_store(tmp_path / "a" / "store")
    modes = {name: stat.S_IMODE(os.stat(f"{layout.root}/{name}").st_mode) for name in os.listdir(layout.root)}
    assert stat.S_IMODE(os.stat(layout.root).st_mode) == 0o711
    assert {name for name, mode in modes.items() if mode == 0o711} == {"trees", "guests"}
    assert set(modes.values()) == {0o711, 0o700}


def test_preparing_again_mends_the_modes_and_keeps_the_content(layout):
    Objects(layout).put_bytes(b"kept")
    os.chmod(layout.objects, 0o777)
    os.chmod(layout.root, 0o755)
    layout.prepare()
    assert stat.S_IMODE(os.stat(layout.objects).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(layout.root).st_mode) == 0o711
    assert len(everything(layout.objects)) == 2


def test_a_folder_of_the_store_that_is_a_symbolic_link_is_refused(tmp_path):
    os.mkdir(tmp_path / "store")
    os.mkdir(tmp_path / "enemy")
    os.symlink(tmp_path / "enemy", tmp_path / "store" / "objects")
    with pytest.raises(HostError, match="objects"):
        Layout(str(tmp_path / "store")).prepare()


def test_object_names_are_read_back_and_strangers_are_not():
    digest = "ab" + "c" * 62
    assert parse_object("ab", "c" * 62) == (digest, False)
    assert parse_object("ab", "c" * 62 + ".x") == (digest, True)
    for folder, name in (("ab", "c"), ("", digest), ("ab", "c" * 62 + ".y"), ("ABC", "c" * 62)):
        assert parse_object(folder, name) is None


def test_digests_are_found_wherever_a_document_has_them():
    a, b = "a" * 64, "0123456789abcdef" * 4
    assert digests_in(f'{{"{a}": ["/x/{b}/y"], "long": "{"c" * 65}"}}'.encode()) == {a, b}


# sessions


def test_a_session_leaves_nothing_of_its_own(layout):
    with Session(layout) as session:
        open(f"{session.directory}/half", "wb").close()
        session.objects.put_bytes(b"x")
        assert everything(layout.tmp)
    assert [name for name in os.listdir(layout.tmp) if name.startswith("session-")] == []


def test_a_store_that_was_not_prepared_is_named(tmp_path):
    with pytest.raises(NotFoundError, match="tmp"):
        Session(Layout(str(tmp_path / "nowhere")))


def test_two_collections_exclude_one_another(layout):
    with collecting(layout, 0), pytest.raises(ConflictError, match="another collection"), collecting(layout, 0.05):
        pass
