"""A launcher of a test's own, spoken to as the daemon speaks to it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

from swiftlet.linux import cgroup
from swiftlet.linux.channel import Channel, connect

PACKAGE_PARENT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
START = "import sys; sys.path.insert(0, sys.argv[1]); from swiftlet.guest.launcher import main; main()"


class TestLauncher:
    """Starts a launcher in `root`, and forgets nothing: `close` ends it and checks that no control group is left."""

    __test__ = False

    def __init__(self, root: str, folder: str) -> None:
        self.root = root
        self.folder = folder
        self.layout = cgroup.detect()
        cgroup.prepare_parent(self.layout, folder)
        os.makedirs(f"{root}/run", exist_ok=True)
        self.socket = f"{root}/run/launcher.sock"
        self.log = open(f"{root}/run/launcher.log", "w")
        command = [sys.executable, "-I", "-S", "-c", START, PACKAGE_PARENT, self.socket, f"{root}/run"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, env={"SWIFTLET_ROOT": root}
        )
        for _ in range(500):
            if os.path.exists(self.socket):
                break
            time.sleep(0.01)
        self.channel: Channel = connect(self.socket)
        self.calls = 0
        self.events: list[dict[str, Any]] = []

    def bundle(self, id_: str, lowers: list[str], argv: list[str], **more: Any) -> dict[str, Any]:
        state = f"{self.root}/guests/{id_}"
        for name in ("upper", "work"):
            os.makedirs(f"{state}/{name}", exist_ok=True)
        plan = cgroup.plan(self.layout, self.folder, id_, **more.pop("limits", {}))
        return {
            "id": id_, "rootfs": {"lowers": lowers}, "state_dir": state, "argv": argv,
            "env": {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, "cwd": "/", "hostname": id_, "uid": 0, "gid": 0,
            "groups": [], "cgroup": {"paths": plan.paths, "writes": plan.writes}, "netns": "new", "volumes": [],
            "tmpfs": [], "capabilities": [0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31], "rlimits": {},
            "seccomp": "", "read_only": False, "volatile": False, "tty": False, "userns": 0, "shm_bytes": 64 << 20,
            **more,
        }  # fmt: skip

    def request(self, method: str, parameters: dict[str, Any], fds: tuple[int, ...] = ()) -> tuple[Any, Any]:
        """The reply to one call; events that come meanwhile are kept."""
        self.calls += 1
        self.channel.send({"call": self.calls, "method": method, "parameters": parameters}, fds)
        while True:
            received = self.channel.receive()
            assert received is not None, open(f"{self.root}/run/launcher.log").read()
            message, descriptors = received
            if message.get("call") == self.calls:
                return message, descriptors
            self.events.append(message)

    def start(self, bundle: dict[str, Any], roles: tuple[str, ...] = (), fds: tuple[int, ...] = (), **more: Any) -> Any:
        return self.request("start", {"bundle": bundle, "roles": roles, "attach": False, **more}, fds)

    def exited(self, id_: str, exec_: str = "") -> dict[str, Any]:
        """Wait for the exit of a guest and return it."""
        while True:
            for event in self.events:
                if event.get("event") == "exited" and event["id"] == id_ and event["exec"] == exec_:
                    self.events.remove(event)
                    return dict(event["exit"])
            received = self.channel.receive()
            assert received is not None
            self.events.append(received[0])

    def run(self, bundle: dict[str, Any], **more: Any) -> tuple[int, str, str]:
        """Start a guest, wait, and return (code, what it wrote to stdout, to stderr)."""
        message, fds = self.start(bundle, **more)
        for fd in fds:
            os.close(fd)
        if "error" in message:
            return -1, "", message["error"]["message"]
        code = self.exited(bundle["id"])["code"]
        texts = [open(f"{bundle['state_dir']}/{name}", errors="replace").read() for name in ("stdout", "stderr")]
        return code, texts[0], texts[1]

    def close(self) -> None:
        for id_ in self.request("list", {})[0]["parameters"]["guests"]:
            self.request("kill", {"id": id_})
        self.request("stop", {})
        self.channel.close()
        self.process.wait(10)
        self.log.close()
        cgroup.remove_parent(self.layout, self.folder)
