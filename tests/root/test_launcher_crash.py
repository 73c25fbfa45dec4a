"""The launcher or its log worker killed at the wrong moment, and what must not end the launcher."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from swiftlet.linux import cgroup
from tests.launching import TestLauncher
from tests.product import eventually

pytestmark = [pytest.mark.root, pytest.mark.crash]

SLOW_START = {"tmpfs": [f"/tmp/{number}" for number in range(1500)]}
"""So many mounts that a start takes some 150 ms."""


class Killed(TestLauncher):
    """A launcher that may be killed: what it cannot clear away any more is cleared away here."""

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        if self.process.poll() is None:
            super().close()
            return
        self.channel.close()
        self.log.close()
        for paths in cgroup.groups_below(self.layout, self.folder).values():
            cgroup.kill_all(paths)
            cgroup.remove(paths)
        cgroup.remove_parent(self.layout, self.folder)


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Killed]:
    made = Killed(str(tmp_path), f"swiftlet-test-{os.getpid()}")
    yield made
    made.close()


def named(process: int, name: str) -> list[int]:
    """The children of a process that go by a name."""
    found = subprocess.run(["pgrep", "-x", "-P", str(process), name], capture_output=True, text=True)
    return [int(word) for word in found.stdout.split()]


def log_of(bundle: dict[str, Any]) -> str:
    with open(f"{bundle['state_dir']}/stdout") as file:
        return file.read()


def test_a_socket_that_a_killed_launcher_left_half_made_is_no_obstacle(tmp_path: Path, busybox_root: str) -> None:
    os.mkdir(tmp_path / "run")
    import socket

    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "run/launcher.sock.new"))
    launcher = TestLauncher(str(tmp_path), f"swiftlet-test-{os.getpid()}")
    assert launcher.run(launcher.bundle("a", [busybox_root], ["true"]))[0] == 0
    launcher.close()


def test_an_instance_has_one_launcher(launcher: TestLauncher, busybox_root: str) -> None:
    second = subprocess.run(launcher.process.args, env={"SWIFTLET_ROOT": launcher.root}, timeout=10)
    assert second.returncode == 0
    assert launcher.run(launcher.bundle("a", [busybox_root], ["true"]))[0] == 0


def test_the_next_launcher_begins_while_a_child_of_the_killed_one_lives(mortal: Killed, busybox_root: str) -> None:
    mortal.start(mortal.bundle("a", [busybox_root], ["sleep", "100"]))
    mortal.kill()
    second = subprocess.Popen(mortal.process.args, env={"SWIFTLET_ROOT": mortal.root})
    time.sleep(0.3)
    assert second.poll() is None
    second.kill()
    second.wait()


def test_a_child_whose_launcher_is_killed_ends_and_does_not_become_one(mortal: Killed, busybox_root: str) -> None:
    request = {"bundle": mortal.bundle("a", [busybox_root], ["sleep", "100"], **SLOW_START), "roles": [], "attach": 0}
    mortal.channel.send({"call": 100, "method": "start", "parameters": request})
    while not (children := named(mortal.process.pid, "swiftlet-launch")):
        time.sleep(0.005)
    [child] = children
    os.kill(child, signal.SIGSTOP)
    mortal.kill()
    os.kill(child, signal.SIGCONT)
    eventually(lambda: not os.path.exists(f"/proc/{child}"), 5)


def test_what_guests_write_after_the_launcher_was_killed_is_in_their_logs(mortal: Killed, busybox_root: str) -> None:
    bundle = mortal.bundle("a", [busybox_root], ["sh", "-c", "echo first; sleep 0.4; seq 1 50000"])
    mortal.start(bundle)
    [worker] = named(mortal.process.pid, "swiftlet-logs")
    mortal.kill()
    eventually(lambda: not os.path.exists(f"/proc/{worker}"), 10)
    assert log_of(bundle).split() == ["first", *map(str, range(1, 50001))]


def test_an_exit_is_on_disk_before_the_control_group_goes_and_told_after(mortal: Killed, busybox_root: str) -> None:
    """A process of ours in the guest's group holds up its removal, and the launcher is killed meanwhile."""
    bundle = mortal.bundle("a", [busybox_root], ["sh", "-c", "sleep 0.3; exit 7"])
    mortal.start(bundle)
    with subprocess.Popen(["sleep", "100"]) as stranger:
        cgroup.join(bundle["cgroup"]["paths"], stranger.pid)
        eventually(lambda: os.path.exists(f"{bundle['state_dir']}/exit.json"), 1.5)
        mortal.kill()
        stranger.kill()
    with open(f"{bundle['state_dir']}/exit.json") as file:
        assert json.load(file)["code"] == 7
    assert mortal.channel.receive() is None


def test_a_guest_whose_folder_was_removed_does_not_end_the_launcher(launcher: TestLauncher, busybox_root: str) -> None:
    bundle = launcher.bundle("a", [busybox_root], ["sh", "-c", "sleep 0.3; exit 7"])
    launcher.start(bundle)
    shutil.rmtree(bundle["state_dir"])
    assert launcher.exited("a")["code"] == 7
    assert launcher.run(launcher.bundle("b", [busybox_root], ["true"]))[0] == 0


def test_a_log_worker_that_is_killed_when_a_log_has_gone_does_not_end_the_launcher(
    launcher: TestLauncher, busybox_root: str
) -> None:
    """Its guest has ended and was removed, and whoever is attached has not read it all."""
    bundle = launcher.bundle("a", [busybox_root], ["sh", "-c", "seq 1 20000"])
    _, fds = launcher.start(bundle, attach=True)
    assert launcher.exited("a")["code"] == 0
    shutil.rmtree(bundle["state_dir"])
    [worker] = named(launcher.process.pid, "swiftlet-logs")
    os.kill(worker, signal.SIGKILL)
    eventually(lambda: named(launcher.process.pid, "swiftlet-logs") not in ([], [worker]))
    assert launcher.run(launcher.bundle("b", [busybox_root], ["echo", "fine"]))[1] == "fine\n"
    read = b""
    while chunk := os.read(fds[1], 65536):
        read += chunk
    assert read.split() == [str(number).encode() for number in range(1, 20001)]
    for fd in fds:
        os.close(fd)


def test_a_guest_whose_log_cannot_be_made_does_not_start(launcher: TestLauncher, busybox_root: str) -> None:
    bundle = launcher.bundle("a", [busybox_root], ["touch", "/executed"])
    os.mkdir(f"{bundle['state_dir']}/index")
    message, _ = launcher.start(bundle)
    assert "index" in message["error"]["message"]
    assert not os.path.exists(f"{bundle['state_dir']}/upper/executed")
    assert not os.path.exists(f"{bundle['state_dir']}/exit.json")
    assert launcher.request("list", {})[0]["parameters"]["guests"] == {}
    assert cgroup.groups_below(launcher.layout, launcher.folder) == {}
