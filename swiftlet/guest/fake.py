"""A fake guest kind for tests: plain processes of this host, no root needed, over the launcher's own wire.

`FakeDriver` plans next to nothing; `main` is a launcher whose guests are not isolated at all. Everything that the
daemon sees of it is as with the real one: messages, descriptors, exit.json before the event, survival of the daemon.
Never started by the product.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from swiftlet.guest.driver import Place
from swiftlet.guest.process import write_exit
from swiftlet.linux.channel import Channel
from swiftlet.model.bundle import Bundle, CgroupPlan, Rootfs
from swiftlet.model.error import InputError
from swiftlet.model.workload import Workload


class FakeDriver:
    """Guests that are not isolated."""

    kind = "fake"
    features = frozenset(("exec",))

    def plan(self, workload: Workload, rootfs: Rootfs, place: Place) -> Bundle:
        """See `Driver.plan`."""
        argv = workload.command or rootfs.entrypoint
        if not argv:
            raise InputError("no command was given")
        return Bundle(
            id=place.id,
            workload=workload,
            rootfs=rootfs,
            state_dir=place.state_dir,
            argv=argv,
            env={"PATH": os.defpath, **workload.env},
            cwd="/",
            hostname=place.id,
            uid=0,
            gid=0,
            groups=(),
            cgroup=CgroupPlan({}),
            netns="host",
            volatile=workload.remove,
        )


class FakeLauncher:
    """One process for each guest, one client."""

    def __init__(self, listener: socket.socket) -> None:
        self.selector = selectors.DefaultSelector()
        self.listener = listener
        self.client: Channel | None = None
        self.guests: dict[str, tuple[subprocess.Popen[bytes], str, int]] = {}
        self.leaving = False
        self.selector.register(listener, selectors.EVENT_READ, self._accept)

    def serve(self) -> None:
        """Work until told to stop and no guest is left."""
        while not (self.leaving and not self.guests):
            for key, _ in self.selector.select():
                key.data()

    def _accept(self) -> None:
        sock, _ = self.listener.accept()
        self._drop()
        self.client = Channel(sock)
        self.selector.register(sock, selectors.EVENT_READ, self._read)

    def _drop(self) -> None:
        if self.client is not None:
            self.selector.unregister(self.client.sock)
            self.client.close()
            self.client = None

    def _read(self) -> None:
        client = self.client
        assert client is not None
        try:
            alive = client.fill()
            while (taken := client.take()) is not None:
                self._answer(*taken)
        except OSError:
            alive = False
        if not alive:
            self._drop()

    def _tell(self, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        if self.client is not None:
            try:
                self.client.send(message, fds)
            except OSError:
                self._drop()

    def _answer(self, message: dict[str, Any], fds: tuple[int, ...]) -> None:
        method: Callable[..., tuple[dict[str, Any], tuple[int, ...]]] = getattr(self, f"do_{message['method']}")
        reply: dict[str, Any] = {"call": message["call"]}
        ends: tuple[int, ...] = ()
        try:
            reply["parameters"], ends = method(message["parameters"], fds)
        except FileNotFoundError as error:
            told = {"kind": "CommandNotFoundError", "message": f"command {error.filename!r} is not there", "hint": ""}
            reply["error"] = told
        except (KeyError, OSError) as error:
            reply["error"] = {"kind": "ConflictError", "message": f"not running: {error}", "hint": ""}
        for fd in fds:
            os.close(fd)
        self._tell(reply, ends)
        for fd in ends:
            os.close(fd)

    def do_start(self, parameters: dict[str, Any], fds: tuple[int, ...]) -> tuple[dict[str, Any], tuple[int, ...]]:
        """Start a plain process."""
        bundle = parameters["bundle"]
        roles = dict(zip(parameters["roles"], fds, strict=True))
        output: Any = subprocess.PIPE if parameters["attach"] else subprocess.DEVNULL
        process = subprocess.Popen(
            bundle["argv"],
            stdin=roles.get("stdin", subprocess.DEVNULL),
            stdout=output,
            stderr=output,
            env=bundle["env"],
            start_new_session=True,
        )
        pidfd = os.pidfd_open(process.pid)
        self.guests[bundle["id"]] = (process, bundle["state_dir"], time.time_ns())
        watched = os.dup(pidfd)
        self.selector.register(watched, selectors.EVENT_READ, lambda: self._ended(bundle["id"], watched))
        ends = tuple(os.dup(pipe.fileno()) for pipe in (process.stdout, process.stderr) if pipe is not None)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        return {"pid": process.pid}, (pidfd, *ends)

    def _ended(self, guest: str, watched: int) -> None:
        self.selector.unregister(watched)
        os.close(watched)
        process, folder, started = self.guests.pop(guest)
        status = process.wait()
        leaving = {
            "code": status if status >= 0 else 128 - status,
            "signal": max(0, -status),
            "oom": False,
            "reason": f"killed by {signal.Signals(-status).name}" if status < 0 else "",
            "started_ns": started,
            "ended_ns": time.time_ns(),
            "usage": {},
        }
        if os.path.isdir(folder):
            write_exit(folder, leaving)
        self._tell({"event": "exited", "id": guest, "exec": "", "exit": leaving})

    def do_list(self, parameters: dict[str, Any], fds: tuple[int, ...]) -> tuple[dict[str, Any], tuple[int, ...]]:
        """All that run."""
        found = {name: {"pid": process.pid, "started_ns": began} for name, (process, _, began) in self.guests.items()}
        return {"guests": found, "execs": [], "exits": {}, "pid": os.getpid()}, ()

    def do_pidfd(self, parameters: dict[str, Any], fds: tuple[int, ...]) -> tuple[dict[str, Any], tuple[int, ...]]:
        """The pidfd of one."""
        return {}, (os.pidfd_open(self.guests[parameters["id"]][0].pid),)

    def do_signal(self, parameters: dict[str, Any], fds: tuple[int, ...]) -> tuple[dict[str, Any], tuple[int, ...]]:
        """Send a signal."""
        self.guests[parameters["id"]][0].send_signal(parameters["signal"])
        return {}, ()

    def do_kill(self, parameters: dict[str, Any], fds: tuple[int, ...]) -> tuple[dict[str, Any], tuple[int, ...]]:
        """Kill it and its session."""
        os.killpg(self.guests[parameters["id"]][0].pid, signal.SIGKILL)
        return {}, ()

    def do_stop(self, parameters: dict[str, Any], fds: tuple[int, ...]) -> tuple[dict[str, Any], tuple[int, ...]]:
        """Leave when no guest is left."""
        self.leaving = True
        return {"guests": len(self.guests)}, ()


def main() -> None:
    """Serve the socket that is the first argument."""
    path = sys.argv[1]
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    listener.bind(f"{path}.new")
    listener.listen(8)
    os.rename(f"{path}.new", path)
    FakeLauncher(listener).serve()


if __name__ == "__main__":
    main()
