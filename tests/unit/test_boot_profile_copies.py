"""The copies that a boot profile starts: none outlives whoever looks at it, and his error is the one that is told."""

from __future__ import annotations

import asyncio
import os
import socket
import time

import msgspec
import pytest

from swiftlet.guest import gdbstub
from swiftlet.image.kernel import kept
from swiftlet.model.bundle import Hypervisor, Machine, Rootfs
from swiftlet.model.error import InputError, LaunchError
from swiftlet.node import bootprofile, bootwatch
from swiftlet.node.prepare import read_bundle
from tests.unit.test_node_guests import host, play, quiet, start, workload  # noqa: F401


def kernel_in(folder, *names):
    for name in names:
        (folder / name).write_text("ffffffff81000000 T _text\n")
    return kept.Kernel(str(folder), "ab" * 32, "6.1", 1, 1.0, "mine")


def test_a_kernel_that_cannot_be_looked_into_is_refused_with_what_it_lacks(tmp_path):
    for names, told in (
        ((), "mine cannot be looked into: it has no vmlinux"),
        (("vmlinux",), "has no System.map"),
        (("vmlinux", "System.map", "initramfs"), "has no vmlinux"),
    ):
        folder = tmp_path / str(len(names))
        folder.mkdir()
        with pytest.raises(InputError, match=told):
            bootprofile.check_kernel(kernel_in(folder, *names))
    kernel = kernel_in(tmp_path, "vmlinux", "System.map")
    bootprofile.check_kernel(kernel)
    (tmp_path / "System.map").write_text("ffffffffffffffff B The real System.map is elsewhere\n")
    with pytest.raises(InputError, match=r"no symbols in its System\.map"):
        bootprofile.check_kernel(kernel)


def test_only_a_kernel_that_has_a_vmlinux_tells_where_it_is(tmp_path):
    assert kernel_in(tmp_path).told()["vmlinux"] is None
    assert kernel_in(tmp_path, "vmlinux").told()["vmlinux"] == f"{tmp_path}/vmlinux"


def test_a_clone_has_no_boot_to_be_profiled(host):  # noqa: F811
    async def scenario():
        guest = (await start(await host.open(), "sleep", "60")).guest
        assert bootprofile.booted(guest) is guest.workload
        guest.snapshot = "web:warm"
        with pytest.raises(InputError, match="a clone of web:warm"):
            bootprofile.booted(guest)

    play(scenario())


class Watchers:
    """In the place of workers: each is ready, and breaks when it is let."""

    def __init__(self, until) -> None:
        self.until = until

    async def run(self, operation, parameters, progress):
        progress({"stage": bootprofile.WATCHING})
        while not self.until():
            await asyncio.sleep(0.01)
        raise LaunchError("the watcher broke")


@pytest.mark.parametrize("late", [False, True])
def test_a_copy_goes_when_its_watcher_breaks_however_far_its_start_has_come(host, monkeypatch, late):  # noqa: F811
    async def scenario():
        node = await host.open()
        asked = []
        real = node.guests.starter.start

        async def hanging(guest, *more):
            asked.append(guest)
            started = await real(guest, *more)
            if late:  # as a machine whose processors nobody lets go on
                while os.path.exists(f"/proc/{started[0]}/exe"):
                    await asyncio.sleep(0.01)
            return started

        monkeypatch.setattr(node.guests.starter, "start", hanging)
        copy = workload("sleep", "60", name="copy", remove=True)
        began = time.monotonic()
        with pytest.raises(LaunchError, match="the watcher broke"):
            await bootprofile._started(node.guests, Watchers(lambda: asked), copy, {"kernel": "", "moments": {}}, quiet)
        assert time.monotonic() - began < 10 and asked
        assert node.guests.by_id == {} and os.listdir(f"{host.instance.root}/names") == []

    play(scenario())


def test_a_new_daemon_removes_a_machine_that_an_earlier_one_looked_into(host):  # noqa: F811
    async def scenario():
        node = await host.open()
        guests = {name: (await start(node, "sleep", "60", name=name)).guest for name in ("left", "plain")}
        await host.crash()
        for name, descriptors in (("left", ("orders", "debugger")), ("plain", ("orders",))):
            bundle = read_bundle(guests[name].folder)
            process = Hypervisor(Rootfs((), ()), (), 0, 0, ())
            machine = Machine(process, "tcg", "", "microvm", "", 1 << 28, 1, (), descriptors)
            with open(f"{guests[name].folder}/bundle.json", "wb") as file:
                file.write(msgspec.json.encode(msgspec.structs.replace(bundle, machine=machine)))
        node = await host.open()
        assert [*node.guests.by_name] == ["plain"]
        assert not os.path.exists(f"/proc/{guests['left'].pid}/exe")

    play(scenario())


def test_who_watches_from_outside_is_done_also_where_nobody_listens(host, monkeypatch):  # noqa: F811
    monkeypatch.setattr(bootwatch, "_CONNECT_SECONDS", 0.05)

    async def scenario():
        guest = (await start(await host.open(), "sleep", "60")).guest
        with bootwatch._Outside(guest.folder, read_bundle(guest.folder), bootwatch.Recording()) as watcher:
            assert await asyncio.to_thread(watcher.done.wait, 5)

    play(scenario())


def test_a_machine_that_ends_before_it_is_looked_into_has_nothing_to_show(monkeypatch):
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, pytest.raises(EOFError):
        gdbstub.Stub(ours)
