"""The daemon's end of its workers (`pull`): a process for each piece of long work, with progress, killed at will.

At most two resolutions run at a time; callers that want the same one share it. A stack that is known is answered
from memory, after a look at every file that it was made of. What a worker does is left to `pull`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from swiftlet.linux.channel import Message
from swiftlet.model.bundle import Rootfs
from swiftlet.model.error import SwiftletError, from_wire
from swiftlet.model.instance import Instance
from swiftlet.node.pull import stamp_of
from swiftlet.node.wire import Wire, close_all
from swiftlet.store.guard import sweep
from swiftlet.store.layout import Layout

Progress = Callable[[dict[str, Any]], None]

AT_ONCE = 2
"""Resolutions at a time; each may use the network, the disk and a processor to the full."""

LEAVE_SECONDS = 2.0
"""A worker that has answered may take so long to clean up."""

_EXCLUSIVE = frozenset(("stack", "resolve", "component", "explain"))
"""Operations that may have to resolve."""


def no_progress(progress: dict[str, Any]) -> None:
    """A Progress that nobody watches."""


class Workers:
    """Starts workers for one instance."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._room = asyncio.Semaphore(AT_ONCE)

    async def run(self, operation: str, parameters: dict[str, Any], progress: Progress = no_progress) -> dict[str, Any]:
        """Do it in a process of its own and return its result; cancelling kills that process.

        Raises the error that the worker names, SwiftletError when it was killed or broke.
        """
        if operation not in _EXCLUSIVE:
            return await self._run(operation, parameters, progress)
        async with self._room:
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
                asyncio.get_running_loop().run_in_executor(None, sweep, Layout(self._instance))
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


class _Known(msgspec.Struct):
    """A root that was made, and what it depends on: [path, inode, size, mtime in nanoseconds] each."""

    rootfs: Rootfs
    stamps: list[tuple[str, int, int, int]]

    def is_current(self) -> bool:
        """Whether nothing that it depends on has changed since."""
        return all(stamp_of(path) == (inode, size, mtime) for path, inode, size, mtime in self.stamps)


class _Shared:
    """A resolution that several callers wait for."""

    def __init__(self, work: Callable[[Progress], Coroutine[Any, Any, Rootfs]]) -> None:
        self.listeners: list[Progress] = []
        self.task = asyncio.get_running_loop().create_task(work(self._tell))

    def _tell(self, progress: dict[str, Any]) -> None:
        for listener in list(self.listeners):
            listener(progress)


class Roots:
    """Roots of guests by the references of their templates (`guests.Roots`)."""

    def __init__(self, workers: Workers, cache: str) -> None:
        self._workers = workers
        self._path = f"{cache}/stacks.json"
        self._running: dict[tuple[str, ...], _Shared] = {}
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
        shared = self._running.get(references)
        if shared is None:
            shared = self._running[references] = _Shared(lambda tell: self._make(references, tell))
        shared.listeners.append(progress)
        try:
            return await asyncio.shield(shared.task)
        finally:
            shared.listeners.remove(progress)
            if not shared.listeners:
                if self._running.get(references) is shared:
                    del self._running[references]
                shared.task.cancel()

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
