"""Workloads as checks: what a trial is given of a workload's volumes, and when all checks have passed."""

from __future__ import annotations

import os
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
