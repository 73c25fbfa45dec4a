"""swiftlet's own arm: a launcher of the bench's own, asked over its socket as the daemon asks it (docs/design.md).

What a start costs here is what it costs in the product: the state folder, pipes and the log worker, control groups,
every namespace, overlay, masked paths, capabilities and the system call filter of a container with default settings
and an empty network namespace.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from bench.peers import Place, wait_until
from bench.spawner import Finished
from swiftlet.guest import driver
from swiftlet.guest.container import ContainerDriver
from swiftlet.linux import cgroup
from swiftlet.linux.channel import Channel, connect
from swiftlet.model.bundle import Rootfs
from swiftlet.model.instance import Instance, instance_of
from swiftlet.model.workload import Workload

TREE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

_START = "import sys; sys.path.insert(0, sys.argv[1]); from swiftlet.guest.launcher import main; main()"


class LauncherArm:
    """See `bench.peers.Arm`; besides, guests that stay, for the storm."""

    name = "start"
    note = "swiftlet's launcher, default settings, an empty network namespace"
    period = 1

    def __init__(self, channel: Channel, instance: Instance, root: str, seccomp: str) -> None:
        self._channel = channel
        self._instance = instance
        self._root = root
        self._seccomp = seccomp
        self._layout = cgroup.detect()
        cgroup.prepare_parent(self._layout, instance.cgroup)
        self._calls = 0
        self.control_groups = "memory, pids, devices, CPU time"

    def run(self, argv: Sequence[str], *, output: bool = False) -> Finished:
        """Start a guest and wait until its end is known; its folder is removed outside the time taken."""
        self._calls += 1
        bundle = self._bundle(self._calls, argv)
        begin = time.perf_counter_ns()
        self._start(bundle)
        leaving = self._ended(bundle["id"])
        elapsed = (time.perf_counter_ns() - begin) / 1e6
        text = self._written(bundle["state_dir"]) if output else ""
        shutil.rmtree(bundle["state_dir"])
        return Finished(elapsed, leaving["code"], text)

    def stay(self, argv: Sequence[str]) -> tuple[str, float]:
        """Start a guest that stays: its id, and milliseconds until its program ran."""
        self._calls += 1
        bundle = self._bundle(self._calls, argv)
        begin = time.perf_counter_ns()
        self._start(bundle)
        return bundle["id"], (time.perf_counter_ns() - begin) / 1e6

    def end(self, guest: str) -> None:
        """Kill a guest that stays, wait for its end, and remove its folder."""
        self._request("kill", {"id": guest})
        self._ended(guest)
        shutil.rmtree(self._folder(guest))

    def _folder(self, guest: str) -> str:
        return f"{self._instance.root}/guests/{guest}"

    def _bundle(self, number: int, argv: Sequence[str]) -> dict[str, Any]:
        """A bundle as the daemon would plan it. Outside the time taken, for crun and runc find theirs ready too."""
        key = f"{number:012x}"
        place = driver.Place(
            id=key,
            state_dir=self._folder(key),
            netns="new",
            volumes=(),
            userns=0,
            cgroups=self._layout,
            cgroup_folder=self._instance.cgroup,
            passwd="root:x:0:0:root:/:/true\n",
            group="root:x:0:\n",
            seccomp=self._seccomp,
        )
        workload = Workload(templates=("bench",), command=tuple(argv), remove=True)
        bundle = ContainerDriver().plan(workload, Rootfs(lowers=(self._root,), trees=("bench",)), place)
        built: dict[str, Any] = msgspec.to_builtins(bundle)
        return built

    def _start(self, bundle: dict[str, Any]) -> None:
        state = bundle["state_dir"]
        for folder in (state, f"{state}/upper", f"{state}/work"):
            os.mkdir(folder)
        self._request("start", {"bundle": bundle, "roles": [], "attach": False})

    def _request(self, method: str, parameters: dict[str, Any]) -> None:
        """Send a request and wait for its reply; one guest is worked at a time, so no event comes before it."""
        self._calls += 1
        self._channel.send({"method": method, "call": self._calls, "parameters": parameters})
        while True:
            message = self._next()
            if message.get("call") == self._calls:
                if "error" in message:
                    raise OSError(f"launcher: {message['error']['message']}")
                return

    def _ended(self, guest: str) -> dict[str, Any]:
        while True:
            message = self._next()
            if message.get("event") == "exited" and message["id"] == guest:
                leaving: dict[str, Any] = message["exit"]
                return leaving

    def _next(self) -> dict[str, Any]:
        received = self._channel.receive()
        if received is None:
            raise OSError("the launcher went away")
        for fd in received[1]:
            os.close(fd)
        return received[0]

    def _written(self, state: str) -> str:
        with open(f"{state}/stdout", errors="replace") as out, open(f"{state}/stderr", errors="replace") as err:
            return out.read() + err.read()


@contextlib.contextmanager
def launcher(place: Place, seccomp: str) -> Iterator[LauncherArm]:
    """A launcher with an instance of its own below the bench's folder. seccomp: path of the compiled program."""
    instance = instance_of({"SWIFTLET_ROOT": f"{place.folder}/launcher"})
    os.makedirs(f"{instance.root}/guests")
    os.makedirs(instance.run)
    command = [sys.executable, "-I", "-S", "-c", _START, TREE, instance.launcher_socket, instance.run]
    environment = {**os.environ, "SWIFTLET_ROOT": instance.root, "SWIFTLET_RUN": instance.run}
    process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)
    try:
        wait_until(lambda: os.path.exists(instance.launcher_socket), "the launcher did not start")
        channel = connect(instance.launcher_socket)
        try:
            yield LauncherArm(channel, instance, place.root, seccomp)
            channel.send({"method": "stop", "call": 0, "parameters": {}})
            channel.receive()
        finally:
            channel.close()
            cgroup.remove_parent(cgroup.detect(), instance.cgroup)
        process.wait(10)
    finally:
        process.kill()
        process.wait()
