"""The daemon's end of the launcher's wire (docs/design.md, "Launcher"): spawns it, asks it, hears how guests end.

The launcher outlives the daemon, so a new daemon first tries the socket of the one that may be running. What its
answers mean for a guest is left to `guests`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from swiftlet.linux.channel import Message, connect
from swiftlet.linux.pidfd import has_ended
from swiftlet.model.error import InputError, LaunchError, from_wire
from swiftlet.model.instance import Instance
from swiftlet.node.wire import Wire, close_all

log = logging.getLogger("swiftlet.launch")

START_SECONDS = 10.0
ANSWER_SECONDS = 60.0
"""A launcher that says nothing for so long is broken; a start takes milliseconds."""

ATTEMPTS = 3
"""How often a request is sent whose launcher has just died."""

LINGER_SECONDS = 0.05
"""After a launcher's end, what it has sent is read for so long if the connection does not end by itself."""

LEAVE_SECONDS = 2.0
"""A launcher that was told to leave ends in a few hundredths of a second; its socket is left where it takes longer."""

DEATH_SECONDS = 0.5
"""Between the end of a killed launcher's connection and its own lie a few milliseconds."""

_CODE = "import sys; sys.path.insert(0, sys.argv[1]); from swiftlet.guest.launcher import main; main()"

Answer = tuple[dict[str, Any], tuple[int, ...]]


class LauncherClient:
    """on_exit: (guest, exec number or "", exit). on_lost: the launcher died, and with it all that it knew.

    on_stray: an answer to a request of an earlier daemon; what it was about has changed. start: another launcher.
    """

    def __init__(
        self,
        instance: Instance,
        *,
        on_exit: Callable[[str, str, dict[str, Any]], None],
        on_lost: Callable[[], None],
        on_stray: Callable[[], None],
        start: Callable[[Instance, str], Any] | None = None,
    ) -> None:
        self._instance = instance
        self._on_exit = on_exit
        self._on_lost = on_lost
        self._on_stray = on_stray
        self._wire: Wire | None = None
        self._peer: _Peer | None = None
        self._connecting: asyncio.Lock = asyncio.Lock()
        self._start = start or start_launcher
        self._process: subprocess.Popen[bytes] | None = None
        self._dismissed = False
        self._next = random.getrandbits(50)
        self._pending: dict[int, asyncio.Future[Answer]] = {}

    @property
    def connected(self) -> bool:
        """Whether there is a launcher to ask."""
        return self._wire is not None and not self._wire.closed

    async def connect(self) -> None:
        """Connect to the launcher, starting one where none answers. Raises LaunchError."""
        async with self._connecting:
            if not await self._connect_again():
                await self._spawn()

    async def reconnect(self) -> bool:
        """Connect again to a launcher that may only have dropped us; False when none answers."""
        async with self._connecting:
            return await self._connect_again()

    async def _connect_again(self) -> bool:
        if not self.connected:
            await self._let_die()
        return self.connected or self._try_connect()

    async def _let_die(self) -> None:
        """Wait for the end of a launcher that was killed: until then its socket takes connections that lead nowhere."""
        peer, self._peer = self._peer, None
        if peer is None:
            return
        try:
            async with asyncio.timeout(DEATH_SECONDS):
                await peer.ended.wait()
        except TimeoutError:
            return  # it lives, and has been given another client
        finally:
            peer.close()

    async def request(self, method: str, parameters: dict[str, Any], fds: tuple[int, ...] = ()) -> Answer:
        """Ask, and wait for the answer and its descriptors, which belong to the caller. `fds` stay the caller's.

        Not to be cancelled: descriptors that come later would be lost. Raises the error that the launcher names,
        LaunchError when it died or does not answer.
        """
        for left in reversed(range(ATTEMPTS)):
            if not self.connected:
                await self.connect()
            try:
                call, answer = await self._send(method, parameters, fds)
                break
            except OSError as error:  # it had died before it could be asked: so the next one may be
                if not left:
                    raise LaunchError(f"the launcher cannot be asked: {error}", f"see {self._log_path}") from None
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await answer
        except TimeoutError:
            raise LaunchError(f"the launcher did not answer {method} in {ANSWER_SECONDS:.0f} s") from None
        finally:
            self._pending.pop(call, None)

    async def _send(
        self, method: str, parameters: dict[str, Any], fds: tuple[int, ...]
    ) -> tuple[int, asyncio.Future[Answer]]:
        """Send a request; its number and the future of its answer.

        Raises OSError when it was not received whole, InputError when it is too long to be sent.
        """
        wire = self._wire
        assert wire is not None
        self._next += 1
        call = self._next
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._pending[call] = answer
        try:
            await wire.send({"call": call, "method": method, "parameters": parameters}, fds)
        except BaseException as error:
            del self._pending[call]
            answer.cancel()
            if not isinstance(error, InputError):  # of that nothing was sent
                self._give_up(wire)
            raise
        return call, answer

    async def dismiss(self) -> None:
        """Have the launcher leave if it has no guest, and take its socket away. Raises SwiftletError.

        Only for the daemon that holds the instance's lock: no other starts a launcher, so the socket is of this one.
        """
        self._dismissed = True
        answer, fds = await self.request("stop", {})
        close_all(fds)
        if answer.get("guests") or self._peer is None:
            return
        try:
            async with asyncio.timeout(LEAVE_SECONDS):
                await self._peer.ended.wait()
        except TimeoutError:
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._instance.launcher_socket)

    def close(self) -> None:
        """Leave the launcher to itself."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None
        if self._peer is not None:
            self._peer.close()
            self._peer = None

    @property
    def _log_path(self) -> str:
        return f"{self._instance.run}/launcher.log"

    def _try_connect(self) -> bool:
        try:
            channel = connect(self._instance.launcher_socket)
        except OSError:
            return False
        process = _process_behind(channel.sock)
        if process < 0:
            channel.close()
            return False
        self._wire = wire = Wire(channel.sock, self._dispatch, self._lost)
        self._peer = _Peer(process, lambda: self._died(wire))
        return True

    def _died(self, wire: Wire) -> None:
        """The launcher has ended. What it sent is still read; a child that it was setting up may hold the other end."""
        asyncio.get_running_loop().call_later(LINGER_SECONDS, self._give_up, wire)

    def _give_up(self, wire: Wire) -> None:
        if wire is self._wire and not wire.closed:
            wire.close()
            self._lost()

    async def _spawn(self) -> None:
        process = self._process = self._start(self._instance, self._log_path)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + START_SECONDS
        while not self._try_connect():
            # One that leaves with 0 found another: an earlier daemon's, which will listen soon.
            if process.poll() or loop.time() > deadline:
                raise LaunchError("the launcher does not start", f"see {self._log_path}")
            await asyncio.sleep(0.004)

    def _dispatch(self, message: Message, fds: tuple[int, ...]) -> None:
        if message.get("event") == "exited":
            self._on_exit(str(message["id"]), str(message.get("exec") or ""), message["exit"])
            return
        answer = self._pending.get(message.get("call", 0))
        if answer is None or answer.done():
            close_all(fds)
            self._on_stray()
        elif "error" in message:
            error = message["error"]
            answer.set_exception(from_wire(error["kind"], error["message"], error.get("hint", "")))
        else:
            answer.set_result((message.get("parameters", {}), fds))

    def _lost(self) -> None:
        self._wire = None
        if self._process is not None:
            self._process.poll()
        for answer in self._pending.values():
            if not answer.done():
                answer.set_exception(LaunchError("the launcher died", f"try again; see {self._log_path}"))
        if not self._dismissed:
            log.error("the launcher has gone")
            self._on_lost()


class _Peer:
    """The launcher's process. process: its pidfd, closed by `close`. on_end: called once."""

    def __init__(self, process: int, on_end: Callable[[], None]) -> None:
        self.ended = asyncio.Event()
        self._process = process
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(process, self._end)

    def _end(self) -> None:
        self._loop.remove_reader(self._process)
        self.ended.set()
        self._on_end()

    def close(self) -> None:
        """Look no longer."""
        self._loop.remove_reader(self._process)
        os.close(self._process)


def _process_behind(sock: socket.socket) -> int:
    """A pidfd of the process that made the socket at the other end, -1 when it has ended: a child may hold it open."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    try:
        process = os.pidfd_open(int.from_bytes(raw[:4], sys.byteorder))
    except OSError:
        return -1
    if not has_ended(process):
        return process
    os.close(process)
    return -1


def start_launcher(instance: Instance, log_path: str) -> subprocess.Popen[bytes]:
    """Start a launcher that outlives this process: the plain interpreter, without site packages. Raises LaunchError."""
    interpreter = getattr(sys, "_base_executable", "") or sys.executable
    package_parent = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environment = {"SWIFTLET_ROOT": instance.root, "SWIFTLET_RUN": instance.run, "PATH": os.environ.get("PATH", "")}
    argv = [interpreter, "-I", "-S", "-c", _CODE, package_parent, instance.launcher_socket, instance.run]
    try:
        with open(log_path, "ab", buffering=0) as output:
            return subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env=environment,
                start_new_session=True,
            )
    except OSError as error:
        raise LaunchError(f"the launcher cannot be started: {error}") from None
