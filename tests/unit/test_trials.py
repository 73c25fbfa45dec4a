"""Workloads as checks: what a trial is given of a workload's volumes, and when all checks have passed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from swiftlet.image.kernel.kept import Kernel
from swiftlet.image.kernel.trim import Check, Checked
from swiftlet.model.bundle import Rootfs
from swiftlet.model.error import InputError
from swiftlet.model.workload import Volume, Workload
from swiftlet.node import trials

KERNEL = Kernel("/k", "ab", "6.1", 1, 1.0)


def rootfs() -> Rootfs:
    return Rootfs(lowers=("/lower",), trees=("tree",))


def test_volumes_are_copied_on_top_of_the_root(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app/app.py").write_text("print(1)\n")
    (tmp_path / "app/link").symlink_to("app.py")
    (tmp_path / "one.conf").write_text("x\n")
    volumes = (Volume(f"{tmp_path}/app", "/srv/app"), Volume(f"{tmp_path}/one.conf", "/etc/one.conf", True))
    workload = Workload(("a@1",), volumes=volumes)
    plain, layered = trials.with_volumes(workload, rootfs(), f"{tmp_path}/copy")
    assert plain.volumes == () and layered.lowers == (f"{tmp_path}/copy", "/lower")
    assert (tmp_path / "copy/srv/app/app.py").read_text() == "print(1)\n"
    assert os.readlink(tmp_path / "copy/srv/app/link") == "app.py" and (tmp_path / "copy/etc/one.conf").exists()
    (tmp_path / "app/app.py").write_text("print(2)\n")
    again = trials.with_volumes(workload, rootfs(), f"{tmp_path}/other")[1]
    assert again.trees[0] != layered.trees[0] and again.trees[1:] == ("tree",)  # other files make another image


def test_a_volume_that_cannot_be_copied_is_named(tmp_path: Path) -> None:
    workload = Workload(("a@1",), volumes=(Volume(f"{tmp_path}/none", "/srv"),))
    with pytest.raises(InputError, match=r"\$\.volumes\[0\]: .*none cannot be copied"):
        trials.with_volumes(workload, rootfs(), f"{tmp_path}/copy")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("in", "/srv/in"), ("plain", "/srv/in/out/new")),  # a link on the way to a target
        (("in", "/srv/in"), ("plain", "/srv/in/out")),  # a link in a target's place
        (("in", "/srv/in"), ("plain/one", "/srv/in/file")),
        (("in", "/a/srv"), ("deep", "/a")),  # a link where a later volume has a folder
        (("in", "/srv"), ("over", "/srv")),  # and where it has a file
    ],
)
def test_no_volume_is_copied_through_a_link_of_another(
    first: tuple[str, str], second: tuple[str, str], tmp_path: Path
) -> None:
    for name in ("in", "plain", "deep/srv/out", "over", "host"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "host/one").write_text("the host's")
    (tmp_path / "in/out").symlink_to(tmp_path / "host")
    (tmp_path / "in/file").symlink_to(tmp_path / "host/one")
    for name in ("plain/one", "deep/srv/out/one", "over/file"):
        (tmp_path / name).write_text("the guest's")
    volumes = tuple(Volume(f"{tmp_path}/{source}", target) for source, target in (first, second))
    with pytest.raises(InputError, match=r"\$\.volumes\[1\]: .*nothing is copied through one"):
        trials.with_volumes(Workload(("a@1",), volumes=volumes), rootfs(), f"{tmp_path}/copy")
    assert (tmp_path / "host/one").read_text() == "the host's" and os.listdir(tmp_path / "host") == ["one"]


def test_a_file_takes_the_place_of_one_of_an_earlier_volume(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app/conf").write_text("a longer one")
    (tmp_path / "conf").write_text("other")
    volumes = Volume(f"{tmp_path}/app", "/srv"), Volume(f"{tmp_path}/conf", "/srv/conf")
    trials.with_volumes(Workload(("a@1",), volumes=volumes), rootfs(), f"{tmp_path}/copy")
    assert (tmp_path / "copy/srv/conf").read_text() == "other"


def test_what_is_no_file_is_refused_and_not_opened(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    os.mkfifo(tmp_path / "app/pipe")
    for source in ("app", "app/pipe"):
        workload = Workload(("a@1",), volumes=(Volume(f"{tmp_path}/{source}", "/srv/pipe"),))
        with pytest.raises(InputError, match="pipe is neither a folder, a file nor a link"):
            trials.with_volumes(workload, rootfs(), f"{tmp_path}/copy-of-{os.path.basename(source)}")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_volumes_keep_their_owners_and_modes(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app/data").write_text("")
    (tmp_path / "app/link").symlink_to("data")
    for number, name in enumerate(("app", "app/data", "app/link")):
        os.chown(tmp_path / name, 1000 + number, 2000 + number, follow_symlinks=False)
    (tmp_path / "app/data").chmod(0o4750)
    workload = Workload(("a@1",), volumes=(Volume(f"{tmp_path}/app", "/srv/app"),))
    _, layered = trials.with_volumes(workload, rootfs(), f"{tmp_path}/copy")
    for number, name in enumerate(("app", "app/data", "app/link")):
        found, source = os.lstat(tmp_path / "copy/srv" / name), os.lstat(tmp_path / name)
        assert (found.st_uid, found.st_gid, found.st_mode) == (1000 + number, 2000 + number, source.st_mode)
    assert os.stat(tmp_path / "copy/srv").st_mode & 0o777 == 0o755
    os.chown(tmp_path / "app", 7, 7)
    assert trials.with_volumes(workload, rootfs(), f"{tmp_path}/other")[1].trees[0] != layered.trees[0]


@pytest.mark.skipif(shutil.which("mkfs.erofs") is None, reason="no mkfs.erofs: ./dev test installs it")
def test_the_image_of_a_copy_of_volumes_is_not_in_the_cache(tmp_path: Path) -> None:
    for name in ("tree", "copy", "cache", "session"):
        (tmp_path / name).mkdir()
    own = trials._image(f"{tmp_path}/copy", "volumes-ab", f"{tmp_path}/cache", f"{tmp_path}/session")
    assert os.listdir(tmp_path / "cache") == [] and Path(own).is_relative_to(tmp_path / "session")
    other = trials._image(f"{tmp_path}/tree", "ab" * 32, f"{tmp_path}/cache", f"{tmp_path}/session")
    assert Path(other).is_relative_to(tmp_path / "cache")


def check(heard: list[str], name: str, passed: bool, boot_ms: float) -> Check:
    def run(kernel: Kernel, *, trace: str = "", words: str = "") -> Checked:
        heard.append(name)
        return Checked(passed, "" if passed else "silent", boot_ms)

    return run


def test_all_checks_have_to_pass_and_the_first_that_does_not_is_named() -> None:
    heard: list[str] = []
    rows = [("one", check(heard, "one", True, 1.0)), ("two", check(heard, "two", True, 2.0))]
    assert trials.all_of(rows)(KERNEL) == Checked(True, "", 1.0) and heard == ["one", "two"]
    bad = [*rows, ("three", check(heard, "three", False, 3.0)), ("four", check(heard, "four", True, 4.0))]
    said = trials.all_of(bad)(KERNEL)
    assert not said.passed and said.why == "three: silent" and heard[2:] == ["one", "two", "three"]


def test_what_is_timed_is_the_first_check_alone() -> None:
    heard: list[str] = []
    rows = [("one", check(heard, "one", True, 1.0)), ("two", check(heard, "two", True, 2.0))]
    assert trials.all_of(rows)(KERNEL, words="quiet").boot_ms == 1.0 and heard == ["one"]
