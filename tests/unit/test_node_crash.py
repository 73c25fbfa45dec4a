"""Whatever is killed or collected around a daemon, a start either goes through or leaves nothing. No root needed."""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import signal
import subprocess
import sys

import pytest

from swiftlet.linux import cgroup
from swiftlet.model.bundle import Rootfs
from swiftlet.model.error import InputError, NotFoundError, StoreError
from swiftlet.model.workload import Volume
from swiftlet.node.guests import ATTEMPTS
from swiftlet.resolve.apt import UnknownPackageError
from tests.unit.test_node_guests import PACKAGE_PARENT, Host, play, quiet, start, workload

DIGEST = "ab" * 32


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(cgroup, "prepare_parent", lambda layout, folder: None)
    monkeypatch.setattr(cgroup, "groups_below", lambda layout, folder: {})
    made = Host(tmp_path)
    yield made
    made.end()


def collected(home, times: int) -> None:
    """A root that is known and not there; it comes with the last of so many resolutions."""
    tree = f"{home.instance.root}/trees/{DIGEST}"
    home.roots.rootfs = Rootfs((tree,), (DIGEST,), {}, ())
    resolve = home.roots.resolve

    async def late(references, progress):
        if home.roots.resolved + 1 >= times:
            os.makedirs(f"{tree}/etc", exist_ok=True)
            with open(f"{tree}/etc/passwd", "w") as file:
                file.write("root:x:0:0::/:/bin/sh\nsomebody:x:77:77::/:/bin/sh\n")
        return await resolve(references, progress)

    home.roots.resolve = late


@pytest.mark.parametrize("times", [1, ATTEMPTS - 1])
def test_a_root_that_was_collected_is_made_again_as_often_as_that_happens(home, times):
    collected(home, times)

    async def scenario():
        node = await home.open()
        started = await start(node, "true", user="somebody")
        assert (await started.guest.wait_ended())["code"] == 0
        assert home.roots.resolved == times
        assert [change.new for change in started.guest.journal.changes][:3] == ["Generating", "Generated", "Running"]

    play(scenario())


def test_a_stopped_guest_whose_root_has_gone_gets_it_again(home):
    collected(home, 1)

    async def scenario():
        node = await home.open()
        guest = (await start(node, "true")).guest
        await guest.wait_ended()
        os.rename(f"{home.instance.root}/trees/{DIGEST}", f"{home.instance.root}/trees/{DIGEST}.damaged")
        await node.guests.start(guest, quiet, attach=False)
        assert (await guest.wait_ended())["code"] == 0

    play(scenario())


def test_a_root_that_is_collected_every_time_is_given_up_and_nothing_is_left(home):
    collected(home, 1000)

    async def scenario():
        node = await home.open()
        with pytest.raises(StoreError, match="was collected 5 times"):
            await start(node, "true", userns=True)
        assert node.guests.by_id == {}
        assert os.listdir(f"{home.instance.root}/leases") == []

    play(scenario())


def test_a_volume_that_is_not_there_is_no_reason_to_resolve_again(home):
    async def scenario():
        node = await home.open()
        with pytest.raises(NotFoundError, match="volume source"):
            await start(node, "true", volumes=(Volume("/no/such", "/x"),))
        assert home.roots.resolved == 0

    play(scenario())


def test_a_range_of_user_ids_is_given_back_when_the_guest_cannot_be_planned(home):
    async def scenario():
        node = await home.open()
        with pytest.raises(InputError, match="NOPE"):
            await start(node, "true", userns=True, seccomp="default", cap_add=("NOPE",))
        assert os.listdir(f"{home.instance.root}/leases") == []

    play(scenario())


def test_a_compiled_filter_that_was_dropped_with_the_cache_is_compiled_again(home):
    async def scenario():
        node = await home.open()
        for _ in range(2):
            started = await start(node, "true", seccomp="default")
            folder = f"{home.instance.root}/cache/seccomp"
            [program] = os.listdir(folder)
            os.unlink(f"{folder}/{program}")
            await started.guest.wait_ended()

    play(scenario())


def test_a_guest_that_is_being_started_again_can_be_removed_by_force(home):
    async def scenario():
        node = await home.open()
        guest = (await start(node, "sleep", "60")).guest
        await node.guests.stop(guest, 0)
        home.launchers[0].send_signal(signal.SIGSTOP)
        again = asyncio.create_task(node.guests.start(guest, quiet, attach=False))
        while guest.state != "Generated":
            await asyncio.sleep(0.001)
        removal = asyncio.create_task(node.guests.remove(guest, force=True))
        await asyncio.sleep(0.05)
        home.launchers[0].send_signal(signal.SIGCONT)
        await again
        await removal
        assert guest.state == "Removed" and node.guests.by_id == {}

    play(scenario())


def test_a_request_to_a_launcher_that_has_just_died_goes_to_the_next(home):
    async def scenario():
        node = await home.open()
        home.launchers[0].kill()
        home.launchers[0].wait()
        answer, _ = await node.launcher.request("list", {})  # before the loop could see the end of the connection
        assert answer["guests"] == {} and len(home.launchers) == 2

    play(scenario())


def test_the_daemon_sweeps_what_dead_workers_left_when_it_starts_and_leaves_the_living(home):
    tmp = f"{home.instance.root}/tmp"
    os.makedirs(f"{tmp}/session-1-dead/half-made")
    os.makedirs(f"{tmp}/session-2-alive")
    images = f"{home.instance.root}/cache/images"
    os.makedirs(f"{images}/.making-1-dead/image")
    os.makedirs(f"{images}/.making-2-alive")
    os.makedirs(f"{home.instance.root}/cache/kernels/.work-1")
    living = [f"{tmp}/session-2-alive", f"{images}/.making-2-alive"]
    held = [os.open(each, os.O_RDONLY) for each in living]
    for each in held:
        fcntl.flock(each, fcntl.LOCK_EX)

    async def scenario():
        await home.open()
        while os.path.exists(f"{home.instance.root}/cache/kernels/.work-1"):
            await asyncio.sleep(0.01)
        assert os.listdir(tmp).count("session-1-dead") == 0
        assert os.listdir(images) == [".making-2-alive"]
        assert all(os.path.exists(each) for each in living)

    play(scenario())
    for each in held:
        os.close(each)


def test_a_worker_whose_daemon_was_killed_before_it_began_leaves_without_a_word(tmp_path):
    """It would work for nobody: its daemon could not yet have taken it along."""
    worker = "import runpy, time; time.sleep(0.5); runpy.run_module('swiftlet.node.pull', run_name='__main__')"
    daemon = (
        "import socket, subprocess, sys; ours, theirs = socket.socketpair();"
        'ours.send(b\'{"operation": "store_verify", "parameters": {"repair": null}}\\0\');'
        f"subprocess.Popen([sys.executable, '-c', {worker!r}, str(theirs.fileno())], pass_fds=[theirs.fileno()])"
    )
    root = tmp_path / "root"
    environment = {**os.environ, "SWIFTLET_ROOT": str(root), "PYTHONPATH": PACKAGE_PARENT}
    done = subprocess.run([sys.executable, "-c", daemon], env=environment, capture_output=True, text=True, timeout=20)
    assert (done.stdout, done.stderr) == ("", ""), "which ends with the last of both processes"


def test_a_child_on_a_leash_ends_with_its_parent_however_that_ends():
    code = (
        "import os, subprocess, sys; from swiftlet.linux.child import leash;"
        "print(subprocess.Popen(['sleep', '100'], preexec_fn=leash()).pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None and parent.stdin is not None
    handle = os.pidfd_open(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    assert select.select([handle], [], [], 5)[0], "it lives on"
    os.close(handle)
    parent.stdout.close()
    parent.stdin.close()


def test_an_error_of_a_deeper_kind_travels_as_the_kind_that_everybody_knows():
    assert UnknownPackageError("x").kind == "NotFoundError"
    assert workload("true").kind == "fake"
