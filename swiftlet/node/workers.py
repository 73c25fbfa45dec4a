"""The daemon's end of its workers (`pull`): a process for each piece of long work, with progress, killed at will.

At most two resolutions run at a time, and one build of a kernel beside them; callers that want the same one share it.
A stack that is known is answered from memory, after a look at every file that it was made of. What a worker does is
left to `pull`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

import msgspec

from swiftlet.linux.channel import Message
from swiftlet.model.bundle import Rootfs
from swiftlet.model.error import SwiftletError, from_wire
from swiftlet.model.instance import Instance
from swiftlet.node.leftovers import AFTER_BUILD_SECONDS, clear
from swiftlet.node.pull import stamp_of
from swiftlet.node.wire import Wire, close_all
from swiftlet.store.layout import Layout

Progress = Callable[[dict[str, Any]], None]
Key = TypeVar("Key")
Result = TypeVar("Result")

AT_ONCE = 2
"""Resolutions at a time; each may use the network, the disk and a processor to the full."""

LEAVE_SECONDS = 2.0
"""A worker that has answered may take so long to clean up."""

_EXCLUSIVE = frozenset(("stack", "resolve", "component", "explain", "image_build", "unikernel_build"))
"""Operations that may have to resolve."""

_BUILDS = frozenset(("kernel_build",))
"""Operations that use every processor for minutes: one at a time, and never in the way of a resolution."""

_LEAVE_BUILDS = _BUILDS | {"kernel_trim"}
"""Operations that leave half a build behind when they are killed. A derivation waits for others at each of its own."""


def no_progress(progress: dict[str, Any]) -> None:
    """A Progress that nobody watches."""


class Workers:
    """Starts workers for one instance."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._room = asyncio.Semaphore(AT_ONCE)
        self._build_room = asyncio.Semaphore(1)

    async def run(self, operation: str, parameters: dict[str, Any], progress: Progress = no_progress) -> dict[str, Any]:
        """Do it in a process of its own and return its result; cancelling kills that process.

        Raises the error that the worker names, SwiftletError when it was killed or broke.
        """
        if operation not in _EXCLUSIVE | _BUILDS:
            return await self._run(operation, parameters, progress)
        room = self._build_room if operation in _BUILDS else self._room
        if operation in _BUILDS and room.locked():
            progress({"stage": "wait", "text": "another kernel is being built", "done": 0, "total": 0})
        async with room:
            return await self._run(operation, parameters, progress)

    async def _run(self, operation: str, parameters: dict[str, Any], progress: Progress) -> dict[str, Any]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        process: subprocess.Popen[bytes] | None = None
        wire: Wire | None = None
        message: Message | None = None
        answer: asyncio.Future[Message | None] = asyncio.get_running_loop().create_future()
        try:
            process = self._spawn(theirs)
            theirs.close()  # so that its death ends the connection
            wire = Wire(ours, _Listener(answer, progress), lambda: _give_up(answer))
            await wire.send({"operation": operation, "parameters": parameters})
            message = await answer
        except OSError:
            pass
        finally:
            theirs.close()
            ours.close() if wire is None else wire.close()
            grace = LEAVE_SECONDS if answer.done() and not answer.cancelled() else 0.0
            status = await asyncio.shield(_end(process, grace)) if process is not None else 0
            if message is None:
                patience = AFTER_BUILD_SECONDS if operation in _LEAVE_BUILDS else 0.0
                asyncio.get_running_loop().run_in_executor(None, clear, Layout(self._instance), patience)
        return _result_of(message, operation, status)

    def _spawn(self, sock: socket.socket) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "SWIFTLET_ROOT": self._instance.root, "SWIFTLET_RUN": self._instance.run}
        argv = [sys.executable, "-I", "-m", "swiftlet.node.pull", str(sock.fileno())]
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            pass_fds=(sock.fileno(),),
            cwd="/",
            env=environment,
            start_new_session=True,
        )


class _Listener:
    """Takes a worker's messages: progress, then the answer."""

    def __init__(self, answer: asyncio.Future[Message | None], progress: Progress) -> None:
        self._answer = answer
        self._progress = progress

    def __call__(self, message: Message, fds: tuple[int, ...]) -> None:
        close_all(fds)
        if isinstance(message.get("progress"), dict):
            self._progress(message["progress"])
        elif not self._answer.done():
            self._answer.set_result(message)


def _give_up(answer: asyncio.Future[Message | None]) -> None:
    if not answer.done():
        answer.set_result(None)


async def _end(process: subprocess.Popen[bytes], grace: float) -> int:
    """See a worker off: after `grace` seconds it and all that it started are killed."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + grace
    while (status := process.poll()) is None:
        if loop.time() >= deadline:
            _kill_session(process.pid)
            return await asyncio.to_thread(process.wait)
        await asyncio.sleep(0.003)
    return status


def _kill_session(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _result_of(message: Message | None, operation: str, status: int) -> dict[str, Any]:
    if message is None:
        how = f"killed by signal {-status}" if status < 0 else f"broken off with status {status}"
        hint = "try again: what was fetched is kept; the daemon's log may say more"
        raise SwiftletError(f"{operation.replace('_', ' ')} was {how}", hint)
    if "error" in message:
        error = message["error"]
        raise from_wire(error["kind"], error["message"], error["hint"])
    result: dict[str, Any] = message["result"]
    return result


def is_there(rootfs: Rootfs) -> bool:
    """Whether a root is still in the store."""
    return all(map(os.path.isdir, rootfs.lowers))


class _Known(msgspec.Struct):
    """A root that was made, and what it depends on: [path, inode, size, mtime in nanoseconds] each."""

    rootfs: Rootfs
    stamps: list[tuple[str, int, int, int]]

    def is_current(self) -> bool:
        """Whether nothing that it depends on has changed since, and nobody has collected it."""
        return is_there(self.rootfs) and all(
            stamp_of(path) == (inode, size, mtime) for path, inode, size, mtime in self.stamps
        )


class _Shared(Generic[Result]):
    """Work that several callers wait for."""

    def __init__(self, work: Callable[[Progress], Coroutine[Any, Any, Result]]) -> None:
        self.listeners: list[Progress] = []
        self.task = asyncio.get_running_loop().create_task(work(self._tell))

    def _tell(self, progress: dict[str, Any]) -> None:
        for listener in list(self.listeners):
            listener(progress)


class Sharing(Generic[Key, Result]):
    """Work by what it is for: who wants the same while it is done waits for it, and hears of its progress."""

    def __init__(self) -> None:
        self._running: dict[Key, _Shared[Result]] = {}

    async def join(
        self, key: Key, progress: Progress, work: Callable[[Progress], Coroutine[Any, Any, Result]]
    ) -> Result:
        """Have the work done, or wait with others for whom it is. Cancelling the last of them ends it."""
        shared = self._running.get(key)
        if shared is None:
            shared = self._running[key] = _Shared(work)
            shared.task.add_done_callback(lambda _: self._forget(key, shared))
        shared.listeners.append(progress)
        try:
            return await asyncio.shield(shared.task)
        finally:
            shared.listeners.remove(progress)
            if not shared.listeners:
                self._forget(key, shared)
                shared.task.cancel()

    def _forget(self, key: Key, shared: _Shared[Result] | None) -> None:
        if self._running.get(key) is shared:
            del self._running[key]


class Kernels:
    """Builds of kernels, each shared by all who want the same one."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._sharing: Sharing[object, dict[str, Any]] = Sharing()

    async def build(self, asked: dict[str, Any], progress: Progress) -> dict[str, Any]:
        """Have a kernel built; `asked` is what the worker is given. Cancelling the last who waits ends the build."""
        key: object = msgspec.json.encode(asked)
        if asked["source"] and os.path.isdir(asked["source"]):
            key = object()  # a tree that somebody works on may have changed since the other build began
        return await self._sharing.join(key, progress, lambda tell: self._workers.run("kernel_build", asked, tell))

    async def trim(self, asked: dict[str, Any], progress: Progress) -> dict[str, Any]:
        """Have a kernel derived; two that ask for the same share its state, and so do the work together."""
        key: object = ("trim", msgspec.json.encode(asked))
        return await self._sharing.join(key, progress, lambda tell: self._workers.run("kernel_trim", asked, tell))


class Roots:
    """Roots of guests by the references of their templates (`guests.Roots`)."""

    def __init__(self, workers: Workers, cache: str) -> None:
        self._workers = workers
        self._path = f"{cache}/stacks.json"
        self._sharing: Sharing[tuple[str, ...], Rootfs] = Sharing()
        self._known: dict[tuple[str, ...], _Known] = self._load()

    def ready(self, references: tuple[str, ...]) -> Rootfs | None:
        """A root that was made before and that would be the same today; about 50 microseconds."""
        known = self._known.get(references)
        if known is None:
            return None
        if not known.is_current():
            del self._known[references]
            return None
        return known.rootfs

    async def resolve(self, references: tuple[str, ...], progress: Progress) -> Rootfs:
        """Have it made, or wait with others for whom it is being made. Cancelling the last of them ends the work."""
        return await self._sharing.join(references, progress, lambda tell: self._make(references, tell))

    async def _make(self, references: tuple[str, ...], progress: Progress) -> Rootfs:
        result = await self._workers.run("stack", {"references": list(references)}, progress)
        known = msgspec.convert(result, _Known)
        self._known[references] = known
        self._save()
        return known.rootfs

    def _load(self) -> dict[tuple[str, ...], _Known]:
        try:
            with open(self._path, "rb") as file:
                rows = msgspec.json.decode(file.read(), type=list[tuple[tuple[str, ...], _Known]])
        except (OSError, msgspec.MsgspecError):
            return {}
        return dict(rows)

    def _save(self) -> None:
        """So that a new daemon knows them too; a cache that cannot be written costs time and no more."""
        try:
            with open(f"{self._path}.new", "wb") as file:
                file.write(msgspec.json.encode(list(self._known.items())))
            os.rename(f"{self._path}.new", self._path)
        except OSError:
            return
