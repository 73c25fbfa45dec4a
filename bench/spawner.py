"""A forked child that starts commands and times them, so that every peer is started from an equally small process.

The child may first enter mount and network namespaces of its own: a peer's mounts, bridges and firewall rules
then end with the bench. Knows nothing of the peers.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from swiftlet.linux import mount, namespace, syscall
from swiftlet.linux.channel import Channel


class Finished(NamedTuple):
    """milliseconds from before the spawn until the command was reaped; code: 128+n for signal n; both streams' text."""

    milliseconds: float
    code: int
    output: str


class Spawner:
    """A context manager around the child. Raises OSError when the child could not be prepared."""

    def __init__(self, prepare: Callable[[], None] | None = None, environment: Mapping[str, str] = os.environ) -> None:
        self._prepare = prepare
        self._environment = dict(environment)
        self._pid = 0

    def __enter__(self) -> Spawner:
        ours, theirs = socket.socketpair()
        self._pid = os.fork()
        if self._pid == 0:
            ours.close()
            _serve(Channel(theirs), self._prepare, self._environment)
        theirs.close()
        self._channel = Channel(ours)
        try:
            self._answer()
        except OSError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()
        os.waitpid(self._pid, 0)

    def run(self, argv: Sequence[str], *, output: bool = False) -> Finished:
        """Run a command to its end; its output is kept only where it is asked for, because keeping it takes time."""
        self._channel.send({"do": "run", "argv": list(argv), "output": output})
        answer = self._answer()
        return Finished(answer["milliseconds"], answer["code"], answer["text"])

    def start(self, argv: Sequence[str], log: str) -> int:
        """Start a command that stays (an engine), output to the file `log`; its pid, to be ended by `finish`."""
        self._channel.send({"do": "start", "argv": list(argv), "log": log})
        return int(self._answer()["pid"])

    def finish(self, pid: int) -> None:
        """Ask a started command to end, and wait for it."""
        self._channel.send({"do": "finish", "pid": pid})
        self._answer()

    def _answer(self) -> dict[str, Any]:
        received = self._channel.receive()
        if received is None:
            raise OSError("a child of the bench went away")
        if "error" in received[0]:
            raise OSError(received[0]["error"])
        return received[0]


def private_mounts(*, hide: Sequence[str] = (), cover: Sequence[str] = ()) -> None:
    """Enter a mount namespace of this process's own; unmount `hide` in it and mount an empty tmpfs over `cover`."""
    syscall.unshare(namespace.NEWNS)
    syscall.mount("none", "/", "", mount.MS_REC | mount.MS_PRIVATE)
    for path in hide:
        syscall.umount(path)
    for path in cover:
        os.makedirs(path, exist_ok=True)
        syscall.mount("tmpfs", path, "tmpfs")


def _serve(channel: Channel, prepare: Callable[[], None] | None, environment: dict[str, str]) -> NoReturn:
    """The child's life: prepare, then one request after the other until the bench is gone."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if prepare:
            prepare()
        channel.send({})
        while (request := channel.receive()) is not None:
            channel.send(_handle(request[0], environment))
    except Exception as error:
        channel.send({"error": f"{type(error).__name__}: {error}"})
    finally:
        os._exit(0)


def _handle(request: dict[str, Any], environment: dict[str, str]) -> dict[str, Any]:
    if request["do"] == "start":
        return {"pid": _spawn(request["argv"], environment, request["log"])}
    if request["do"] == "finish":
        os.kill(request["pid"], signal.SIGTERM)
        os.waitpid(request["pid"], 0)
        return {}
    return _run(request["argv"], environment, request["output"])


def _run(argv: list[str], environment: dict[str, str], output: bool) -> dict[str, Any]:
    kept = os.memfd_create("output") if output else -1
    begin = time.perf_counter_ns()
    pid = _spawn(argv, environment, f"/proc/self/fd/{kept}" if output else os.devnull)
    _, status = os.waitpid(pid, 0)
    elapsed = time.perf_counter_ns() - begin
    text = ""
    if output:
        text = os.pread(kept, 65536, 0).decode(errors="replace")
        os.close(kept)
    code = os.waitstatus_to_exitcode(status)
    return {"milliseconds": elapsed / 1e6, "code": 128 - code if code < 0 else code, "text": text}


def _spawn(argv: list[str], environment: dict[str, str], output: str) -> int:
    return os.posix_spawnp(
        argv[0],
        argv,
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
    )
