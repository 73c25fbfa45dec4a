"""Volumes: what is shown is what was asked for, and nothing leads into swiftlet's own folders."""

from __future__ import annotations

import os
import socket

import pytest

from swiftlet.linux import mount, namespace, syscall
from swiftlet.model.error import InputError, NotFoundError
from swiftlet.model.workload import Volume
from swiftlet.node.volumes import close_volumes, open_volumes

pytestmark = pytest.mark.root


@pytest.fixture
def host(tmp_path):
    """A root, a run folder elsewhere, a folder to show; all mounts that a test makes leave with its namespace."""
    for name in ("store/objects/ab", "store/trees", "run", "shared/sub", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "shared/file").write_text("content")
    return tmp_path


def opened(host, source, read_only=False):
    volumes = [Volume(str(source), "/x", read_only)]
    return open_volumes(volumes, (f"{host}/store", f"{host}/run"))


def in_namespace(work):
    """Run in a child with mounts of its own; its assertion errors come out here."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            syscall.unshare(namespace.NEWNS)
            syscall.mount("none", "/", "", mount.MS_REC | mount.MS_PRIVATE)
            work()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def attach(volume, place):
    syscall.move_mount(volume.mount, syscall.AT_FDCWD, str(place))


def test_a_folder_is_shown_with_what_is_mounted_in_it_and_without_set_uid_and_devices(host):
    def work():
        syscall.mount("t", f"{host}/shared/sub", "tmpfs", 0, "")
        (host / "shared/sub/inner").write_text("inner")
        (volume,) = opened(host, host / "shared")
        assert volume.is_folder and volume.target == "/x"
        attach(volume, host / "elsewhere")
        assert (host / "elsewhere/file").read_text() == "content"
        assert (host / "elsewhere/sub/inner").read_text() == "inner"
        flags = os.statvfs(host / "elsewhere/sub").f_flag
        assert flags & os.ST_NOSUID and flags & os.ST_NODEV and not flags & os.ST_RDONLY
        (host / "elsewhere/new").write_text("x")
        assert (host / "shared/new").exists()

    in_namespace(work)


def test_a_read_only_volume_is_read_only_with_all_that_is_mounted_in_it(host):
    def work():
        syscall.mount("t", f"{host}/shared/sub", "tmpfs", 0, "")
        (volume,) = opened(host, host / "shared", read_only=True)
        attach(volume, host / "elsewhere")
        for path in ("new", "sub/new"):
            with pytest.raises(OSError, match="Read-only"):
                (host / "elsewhere" / path).write_text("x")

    in_namespace(work)


def test_a_file_is_shown_as_a_file(host):
    (volume,) = opened(host, host / "shared/file")
    assert not volume.is_folder
    close_volumes([volume])


def test_a_path_that_is_changed_after_it_was_opened_changes_nothing(host):
    def work():
        (host / "secret").mkdir()
        (volume,) = opened(host, host / "shared")
        os.rename(host / "shared", host / "was")
        os.symlink(host / "secret", host / "shared")
        attach(volume, host / "elsewhere")
        assert (host / "elsewhere/file").read_text() == "content"

    in_namespace(work)


def test_a_source_that_is_not_there_is_one_clear_line_with_the_way_to_make_it(host):
    with pytest.raises(NotFoundError, match=f"volume source {host}/no is not there") as caught:
        opened(host, host / "no")
    assert caught.value.hint == f"mkdir -p {host}/no"


@pytest.mark.parametrize("path", ["store", "store/objects", "store/objects/ab", "run"])
@pytest.mark.parametrize("read_only", [False, True])
def test_swiftlets_own_folders_are_refused_read_only_too(host, path, read_only):
    with pytest.raises(InputError, match="lies in swiftlet's own folders"):
        opened(host, host / path, read_only)


def test_they_are_refused_through_a_symlink(host):
    os.symlink(host / "store/objects", host / "link")
    with pytest.raises(InputError, match="own folders"):
        opened(host, host / "link")


def test_they_are_refused_through_another_mount_of_theirs(host):
    def work():
        syscall.mount(f"{host}/store/objects", f"{host}/elsewhere", "", mount.MS_BIND)
        with pytest.raises(InputError, match="own folders"):
            opened(host, host / "elsewhere/ab")

    in_namespace(work)


def test_they_are_refused_where_they_are_mounted_below_what_is_shown(host):
    def work():
        syscall.mount(f"{host}/store", f"{host}/shared/sub", "", mount.MS_BIND)
        with pytest.raises(InputError, match="own folders"):
            opened(host, host / "shared")

    in_namespace(work)


@pytest.mark.parametrize("source", ["/", "parent"])
def test_a_writable_volume_that_holds_them_is_refused_and_a_read_only_one_is_not(host, source):
    path = host if source == "parent" else source
    with pytest.raises(InputError, match="would let the guest write swiftlet's own folders"):
        opened(host, path)
    close_volumes(opened(host, path, read_only=True))


def test_magic_links_of_proc_are_not_followed(host):
    for path in ("/proc/self/root/etc", "/proc/self/cwd", f"/proc/{os.getpid()}/root"):
        with pytest.raises(InputError, match="cannot be opened"):
            opened(host, path, read_only=True)


def test_devices_are_refused_and_foreign_sockets_are_shown(host):
    with pytest.raises(InputError, match="neither a folder nor a file"):
        opened(host, "/dev/null")
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(f"{host}/s.sock")
    close_volumes(opened(host, host / "s.sock"))
    sock.close()


def test_when_one_is_refused_none_stays_open(host):
    before = len(os.listdir("/proc/self/fd"))
    volumes = [Volume(str(host / "shared"), "/a"), Volume(str(host / "no"), "/b")]
    with pytest.raises(NotFoundError):
        open_volumes(volumes, ())
    assert len(os.listdir("/proc/self/fd")) == before
