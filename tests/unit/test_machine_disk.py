"""Machines with a disk: what QEMU and the guest are told, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from swiftlet.guest import orders, qemu
from swiftlet.guest.container import ContainerDriver
from swiftlet.guest.machine import disk_of
from swiftlet.model.bundle import Bundle
from swiftlet.model.error import FullError, HostError, InputError, StoreError
from swiftlet.model.workload import Resources, Workload
from swiftlet.node import rootdisk
from tests.unit.test_container import PLACE as CONTAINER
from tests.unit.test_machine import plan


def planned(*, remove: bool = False) -> Bundle:
    return plan(resources=Resources(disk=100 << 20), remove=remove)


@pytest.mark.parametrize("remove", [False, True])
def test_qemu_gets_it_as_a_descriptor_and_the_guest_as_the_disk_behind_the_images(remove: bool) -> None:
    bundle = planned(remove=remove)
    machine = bundle.machine
    assert machine is not None and machine.disk == 100 << 20
    number = machine.first + machine.descriptors.index("disk")
    (words,) = (word for word in machine.process.argv if "node-name=disk," in word)
    assert f"filename=/dev/fdset/{number}," in words and words.endswith("cache.no-flush=on") == remove
    assert f"fd={number},set={number}" in machine.process.argv
    told = orders.start(bundle, machine, None, {"/etc/hosts": "text"}, 0, "", {})
    device = f"/dev/vd{'abcdefgh'[len(machine.images)]}"
    assert orders.order("m", device, "/upper", "ext4", "0", "discard,noinit_itable,errors=panic") in told
    assert orders.order("f", "/etc/hosts", "0644", "text", "whatever") in told and "\0/upper\0tmpfs" not in told


def test_behind_mapped_images_it_is_the_second() -> None:
    bundle = planned()
    assert bundle.machine is not None
    mapped = msgspec.structs.replace(bundle.machine, mapped=True)
    assert orders.order("m", "/dev/vdb", "/upper", "ext4", "0", "discard,noinit_itable,errors=panic") in orders.start(
        bundle, mapped, None, {}, 0, "", {}
    )


def test_it_is_one_more_device() -> None:
    without, with_ = (
        qemu.channels(terminal=False, input_=False, network=True, shares=0, disk=disk) for disk in (False, True)
    )
    assert qemu.device_count(with_, 2, 0) == qemu.device_count(without, 2, 0) + 1


def test_what_has_none_or_would_have_too_little_is_refused() -> None:
    workload = Workload(("busybox",), ("true",), resources=Resources(disk=100 << 20))
    bundle = planned()
    with pytest.raises(InputError, match="container has no disk"):
        ContainerDriver().plan(workload, bundle.rootfs, CONTAINER)
    with pytest.raises(InputError, match="too little for a disk"):
        disk_of(msgspec.structs.replace(workload, resources=Resources(disk=1 << 20)))
    assert disk_of(msgspec.structs.replace(workload, resources=Resources(disk=(16 << 20) + 5))) == 16 << 20


def test_it_is_made_once_and_sparse(tmp_path: Path) -> None:
    for _ in range(2):
        fd = rootdisk.open_disk(str(tmp_path), 64 << 20)
        try:
            assert os.pread(fd, 2, 1024 + 56) == b"\x53\xef"  # ext4's magic number
            mark = os.pread(fd, 4, 60 << 20)
            os.pwrite(fd, b"mine", 60 << 20)
        finally:
            os.close(fd)
    assert mark == b"mine" and os.listdir(tmp_path) == ["disk"]
    found = os.stat(tmp_path / "disk")
    assert found.st_size == 64 << 20 and found.st_blocks * 512 < 16 << 20 and found.st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("script", "error"),
    [("echo no device >&2; exit 1", StoreError), ("echo No space left on device >&2; exit 1", FullError)],
)
def test_one_that_cannot_be_made_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, error: type[Exception]
) -> None:
    program = tmp_path / "bin/mkfs.ext4"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    (tmp_path / "guest").mkdir()
    with pytest.raises(error):
        rootdisk.open_disk(str(tmp_path / "guest"), 64 << 20)
    assert os.listdir(tmp_path / "guest") == []


def test_a_host_without_the_program_is_told_which_package_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rootdisk.shutil, "which", lambda *_, **__: None)
    with pytest.raises(HostError, match=r"mkfs\.ext4") as caught:
        rootdisk.open_disk(str(tmp_path), 64 << 20)
    assert caught.value.hint == "apt-get install e2fsprogs" and os.listdir(tmp_path) == []


def test_more_devices_than_a_machine_has_room_for_are_refused() -> None:
    folders = tuple((f"/data{number}", True) for number in range(qemu.PCI_DEVICES))
    with pytest.raises(InputError, match="too many for a machine"):
        plan(volumes=folders)
    assert plan(volumes=folders[: qemu.PCI_DEVICES - 6]).machine is not None
