"""A node daemon for tests of the command: it speaks the protocol over a real socket and runs real processes.

No container, no root: `Run` starts its command as a child with real pipes or a real pseudo-terminal, and
sends its real pidfd. Usable in a thread (`FakeNode`) and as a daemon of its own (`python fakenode.py`).
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from typing import Any

from swiftlet.linux.channel import Channel

PREFIX = "io.swiftlet.Node."


class Call:
    """One call that a handler answers."""

    def __init__(self, channel: Channel, message: dict[str, Any], fds: tuple[int, ...]) -> None:
        self.channel = channel
        self.method = message["method"].removeprefix(PREFIX)
        self.more = message.get("more", False)
        self.parameters = message.get("parameters", {})
        self.fds = fds

    def answer(self, parameters: dict[str, Any], fds: tuple[int, ...] = (), *, continues: bool = False) -> None:
        message: dict[str, Any] = {"parameters": parameters}
        if continues:
            message["continues"] = True
        self.channel.send(message, fds)

    def error(self, kind: str, message: str, hint: str = "") -> None:
        name = kind if "." in kind else PREFIX + kind
        self.channel.send({"error": name, "parameters": {"message": message, "hint": hint, "exit_code": 125}})


def _daemon_of(run: str) -> bool:
    """Whether a real daemon of a run folder lives."""
    for number in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{number}/environ", "rb") as environ, open(f"/proc/{number}/cmdline", "rb") as line:
                if b"swiftlet.api.daemon" in line.read() and f"SWIFTLET_RUN={run}".encode() in environ.read():
                    return True
        except OSError:
            continue
    return False


class FakeNode:
    """Listens on `path`; `answers` maps a method to its answer, or to a function that is given the Call."""

    def __init__(self, path: str, answers: dict[str, Any] | None = None) -> None:
        self.path = path
        self.answers: dict[str, Any] = {"Run": self.run, "Exec": self.run, "Wait": self.wait, **(answers or {})}
        self.calls: list[Call] = []
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self.channels: list[Channel] = []
        self.consoles: set[int] = set()
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self.lock = open(f"{os.path.dirname(path)}/node.lock", "a")
        fcntl.flock(self.lock, fcntl.LOCK_EX)  # a command that finds nobody at the socket starts a daemon, a real one
        self.listen()

    def listen(self) -> None:
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        self.listener.bind(self.path)
        self.listener.listen(20)
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            channel = Channel(connection)
            self.channels.append(channel)
            threading.Thread(target=self._serve, args=(channel,), daemon=True).start()

    def _serve(self, channel: Channel) -> None:
        try:
            while (received := channel.receive()) is not None:
                call = Call(channel, *received)
                self.calls.append(call)
                answer = self.answers.get(call.method)
                if answer is None:
                    call.error("org.varlink.service.MethodNotFound", call.method)
                elif callable(answer):
                    answer(call)
                else:
                    call.answer(answer)
            channel.close()
        except OSError:
            return

    def die(self) -> None:
        """What kill -9 does to a daemon's sockets."""
        os.unlink(self.path)
        for each in (self.listener, *(channel.sock for channel in self.channels)):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            each.close()
        self.channels = []

    def close(self) -> None:
        self.die()
        self._outlast_daemons()
        self.lock.close()
        for child in self.children.values():
            child.kill()
            child.wait()
        for console in self.consoles:
            os.close(console)

    def _outlast_daemons(self) -> None:
        """Keep the lock until every real daemon has found it taken and left: a slow one would stay for ever."""
        run = os.path.dirname(self.path)
        deadline = time.monotonic() + 10
        while os.path.exists(f"{run}/node.log") and _daemon_of(run) and time.monotonic() < deadline:
            time.sleep(0.02)

    def parameters_of(self, method: str) -> dict[str, Any]:
        """The parameters of the first call of a method."""
        return next(call.parameters for call in self.calls if call.method == method)

    def run(self, call: Call) -> None:
        """`Run` and `Exec`: the command as a child of ours."""
        what = call.parameters.get("workload") or call.parameters
        child, ends = start_child(what, call.fds)
        if call.method == "Run" and what.get("tty"):
            ends = (*ends, copy_of(ends[0]))
        guest = f"{len(self.children):02d}{child.pid:010x}" + "0" * 52
        self.children[guest] = child
        name = what.get("name") or "merry_swift"
        detach = call.parameters.get("detach")
        fds = (os.pidfd_open(child.pid), *(() if detach else ends))
        call.answer({"started": {"id": guest, "name": name, "pid": child.pid}}, fds, continues=not detach)
        kept = {ends[0]} if what.get("tty") else set()  # whoever else holds the console keeps it from hanging up
        self.consoles |= kept
        for fd in {*fds, *ends, *call.fds} - kept:
            os.close(fd)
        if not detach:
            call.answer({"exited": exit_of(child)})

    def wait(self, call: Call) -> None:
        child = self.children.get(call.parameters["guest"])
        if child is None:
            call.error("NotFoundError", f"no guest {call.parameters['guest']}")
        else:
            call.answer({"exited": exit_of(child)})


def start_child(what: dict[str, Any], fds: tuple[int, ...]) -> tuple[subprocess.Popen[bytes], tuple[int, ...]]:
    """A real process; its console's master, or the read ends of its stdout and stderr."""
    environment = {**os.environ, **what.get("env", {})}
    if what.get("tty"):
        master, slave = os.openpty()
        child = subprocess.Popen(
            what["command"],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0) and None,
        )
        os.close(slave)
        return child, (master,)
    stdin = fds[0] if what.get("interactive") else subprocess.DEVNULL
    child = subprocess.Popen(
        what["command"],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    assert child.stdout and child.stderr
    return child, (os.dup(child.stdout.fileno()), os.dup(child.stderr.fileno()))


def copy_of(console: int) -> int:
    """The read end of what is written to a console, which is read by a thread here as by the log worker."""
    source, (end, copy) = os.dup(console), os.pipe()

    def pump() -> None:
        try:
            while True:  # the console is the command's too, which does not wait when it writes to it
                select.select([source], [], [])
                os.write(copy, os.read(source, 65536))
        except OSError:  # nobody is left on either side
            pass
        os.close(source)
        os.close(copy)

    threading.Thread(target=pump, daemon=True).start()
    return end


def exit_of(child: subprocess.Popen[bytes]) -> dict[str, Any]:
    if child.stdout and child.stderr:
        child.stdout.close()
        child.stderr.close()
    code = child.wait()
    return {"code": code if code >= 0 else 128 - code, "signal": -code if code < 0 else 0, "oom": False, "reason": ""}


def main(argv: list[str], started: Callable[[], None] = lambda: None) -> int:
    """A daemon process: takes the lock or leaves with 0, listens after a while, stays until killed.

    argv: a folder in which each winner leaves a file, seconds until it listens, seconds until it goes.
    """
    marks, delay, life = argv[0], float(argv[1]), float(argv[2])
    lock = os.open(os.environ["SWIFTLET_RUN"] + "/node.pid", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 0
    time.sleep(delay)
    with open(f"{marks}/{os.getpid()}", "w"):
        FakeNode(os.environ["SWIFTLET_RUN"] + "/node.sock", {"List": {"guests": []}})
    signal.alarm(int(life) or 1)
    signal.pause()
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
