"""swiftlet as its user has it, for suites that run virtual machines: an installation of the bench's own that is kept.

Its root keeps templates, images and kernels between runs, so that a run measures and does not install. Guests are
removed when a suite ends, and its daemon is ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from bench.boot import answers
from bench.command import end
from bench.launcher import TREE
from swiftlet.image.kernel.build import Kernel, kernel_of, kernels_of
from swiftlet.model.bundle import Bundle
from swiftlet.model.instance import Instance, instance_of
from swiftlet.node.prepare import read_bundle
from swiftlet.store.layout import Layout

COMMAND_SECONDS = 180.0
_BUILD_SECONDS = 3600.0
_ASK_SECONDS = 0.002


class Guest(NamedTuple):
    """A guest that runs. milliseconds: from before the command until its service had answered, or until it ran.

    launched: until the answer from when the daemon had planned it and began to attach its network and start its QEMU.
    """

    id: str
    milliseconds: float
    launched: float = 0.0


class Installation:
    """The command, with the instance that it works on."""

    def __init__(self, instance: Instance, program: str) -> None:
        self.instance = instance
        self._program = program
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SWIFTLET_")}
        self._environment = {**environment, "SWIFTLET_ROOT": instance.root}

    @property
    def cache(self) -> str:
        """Where images and kernels are kept."""
        return f"{self.instance.root}/cache"

    def call(self, *words: str, seconds: float = COMMAND_SECONDS) -> str:
        """What a command wrote. Raises OSError with what it said when it fails or takes too long."""
        try:
            done = subprocess.run(
                [self._program, *words],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired:
            raise OSError(f"swiftlet {' '.join(words[:4])}: no end after {seconds:.0f} s") from None
        if done.returncode:
            raise OSError(f"swiftlet {' '.join(words[:4])}: {done.stderr.strip() or done.returncode}")
        return done.stdout

    def file_of(self, template: str, path: str) -> str:
        """Where on this host a template's file lies, among the others of its tree; a guest of it has been started."""
        told = json.loads(self.call("template", "resolve", "--json", template))
        return Layout(self.instance).tree(told[0]["digest"]) + path

    def start(self, *words: str) -> Guest:
        """`swiftlet run -d`: a guest, and how long the command took."""
        begin = time.perf_counter()
        told = self.call("run", "-d", *words)
        return Guest(told.split()[-1], (time.perf_counter() - begin) * 1000)

    def serve(self, make: Callable[[str], Sequence[str]], path: str = "/", seconds: float = COMMAND_SECONDS) -> Guest:
        """Start a guest that serves and wait until it has answered on the published port.

        make: the words after `run -d`, of a port of this host's. Nobody asks before the command has ended, as a user
        would not. Raises OSError with the end of the guest's console.
        """
        port = free_port()
        begin = time.perf_counter()
        guest = self.call("run", *make(f"127.0.0.1:{port}")).split()[-1]
        while not answers("127.0.0.1", port, path):
            if time.perf_counter() > begin + seconds:
                raise OSError(f"guest {guest}: no answer after {seconds:.0f} s; its console:\n{self._console(guest)}")
            time.sleep(_ASK_SECONDS)
        answered, wall = time.perf_counter(), time.time_ns()
        planned = next(each["time_ns"] for each in self.inspect(guest)[0]["journal"] if each["to"] == "Generated")
        return Guest(guest, (answered - begin) * 1000, (wall - planned) / 1e6)

    def _console(self, guest: str) -> str:
        """The last lines of a machine's console."""
        try:
            with open(f"{self.inspect(guest)[0]['folder']}/console", errors="replace") as file:
                return "".join(file.readlines()[-12:])
        except OSError as error:
            return str(error)

    def inspect(self, *guests: str) -> list[dict[str, Any]]:
        """Everything that is known of guests."""
        found: list[dict[str, Any]] = json.loads(self.call("inspect", *guests))
        return found

    def bundle(self, guest: str) -> Bundle:
        """What a guest was launched with."""
        return msgspec.convert(self.inspect(guest)[0]["bundle"], Bundle)

    def waiting(self) -> dict[str, Any]:
        """The machine that waits to be the next clone, as `inspect` would tell of it. Raises OSError."""
        listed = {guest["id"] for guest in json.loads(self.call("ps", "-a", "--json"))}
        for name in os.listdir(f"{self.instance.root}/guests"):
            bundle = None if name in listed else read_bundle(f"{self.instance.root}/guests/{name}")
            if bundle is not None:
                return {"bundle": msgspec.to_builtins(bundle)}
        raise OSError("no machine waits to be a clone")

    def remove(self, *guests: str) -> None:
        """Kill and remove guests."""
        if guests:
            self.call("rm", "-f", *guests)

    def remove_all(self) -> None:
        """Remove every guest and snapshot, whatever an earlier run has left."""
        self.remove(*(guest["id"] for guest in json.loads(self.call("ps", "-a", "--json"))))
        for each in json.loads(self.call("snapshot", "ls", "--json")):
            self.call("snapshot", "rm", each["name"])

    def kernel(self) -> Kernel:
        """A server's kernel as this tree makes it, found or built (minutes). Guests take the newest: older ones go."""
        digest = self.call("kernel", "build", "-q", "-p", "server", seconds=_BUILD_SECONDS).strip()
        for other in kernels_of(self.cache):
            if other.name == "server" and other.digest != digest:
                self.call("kernel", "rm", other.digest)
        return next(each for each in kernels_of(self.cache) if each.digest == digest)

    def kernel_of(self, bundle: Bundle) -> Kernel:
        """The kernel that a guest was started with. Raises OSError."""
        found = kernel_of(self.cache, bundle.machine.kernel) if bundle.machine else None
        if found is None:
            raise OSError("the guest's kernel is no longer in the cache")
        return found

    @property
    def daemon(self) -> int:
        """The daemon's process number. Raises OSError."""
        with open(f"{self.instance.run}/node.pid") as file:
            return int(file.read())


@contextlib.contextmanager
def installation(root: str, program: str = f"{TREE}/.venv/bin/swiftlet") -> Iterator[Installation]:
    """The installation at a root, without guests; its daemon is started by the first call and ended here."""
    made = Installation(instance_of({"SWIFTLET_ROOT": root}), program)
    try:
        made.remove_all()
        yield made
    finally:
        with contextlib.suppress(OSError):
            made.remove_all()
        end(made.instance)


def free_port() -> int:
    """A port of this host's loopback that nobody has at the moment."""
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])
