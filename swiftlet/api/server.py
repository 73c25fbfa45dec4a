"""A varlink server over a Unix stream socket, with descriptors passed both ways; knows no method of its own.

asyncio's streams cannot pass descriptors, so this works on the raw non-blocking socket (`add_reader` and
`linux.channel`). Calls of one connection are answered one after the other, in order, as varlink demands;
connections do not wait for one another. Whatever arrives on a connection harms only that connection: it is
closed on anything that is no message, that is too long or too slow, or that nobody reads the answers of.
What a call is and who answers it is `service`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import select
import socket
import struct
from collections import deque

from swiftlet.api.service import VARLINK, Call, Service
from swiftlet.linux.channel import Channel, ChannelError, Message, OversizeError
from swiftlet.model.error import WireError
from swiftlet.node.wire import close_all, send_message

log = logging.getLogger("swiftlet.server")

MAX_CONNECTIONS = 2048
MAX_WAITING_CALLS = 16
"""Calls of one connection that wait while another is answered; then nothing more is read from it."""

MAX_UNREAD_BYTES = 64 << 20
"""Bytes of unfinished messages over all connections; the connection that passes it is closed."""

MESSAGE_SECONDS = 30.0
"""A message that began to arrive must be complete after this time."""

SEND_SECONDS = 30.0
"""A peer that takes nothing of an answer for this long is given up."""

_CREDENTIALS = struct.Struct("3i")


class Connection:
    """One peer: reads its messages, answers its calls in order, and closes what it left behind."""

    def __init__(self, server: Server, sock: socket.socket) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._channel = Channel(sock)
        self._waiting: deque[tuple[Message, tuple[int, ...]]] = deque()
        self._arrived = asyncio.Event()
        self._counted = 0
        self._ended = False
        self._reading = False
        self._deadline: asyncio.TimerHandle | None = None
        self._current: asyncio.Task[None] | None = None
        self._current_is_oneway = False
        self._task = self._loop.create_task(self._serve())
        self._task.add_done_callback(self._close)
        self._resume()

    def _count_unread(self) -> None:
        """Keep the server's sum of what connections hold in unfinished messages."""
        self._server.unread += self._channel.buffered - self._counted
        self._counted = self._channel.buffered

    def cancel(self) -> None:
        """End it, whatever it is doing."""
        self._task.cancel()

    def _resume(self) -> None:
        if not self._reading and not self._ended:
            self._reading = True
            self._loop.add_reader(self._channel.sock, self._read)

    def _pause(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._channel.sock)

    def _read(self) -> None:
        """Take one read's worth; on the end of the stream or a fault stop for good."""
        try:
            if not self._channel.fill():
                self._end_of_stream()
                return
            self._take()
        except BlockingIOError:
            return
        except OSError as error:
            self._refuse(str(error))
        self._count_unread()
        if self._server.unread > MAX_UNREAD_BYTES:
            self._refuse("too much unread input")

    def _take(self) -> None:
        while (entry := self._channel.take()) is not None:
            self._waiting.append(entry)
            self._arrived.set()
            self._set_deadline(None)
            if len(self._waiting) >= MAX_WAITING_CALLS:
                self._pause()
                break
        if self._channel.buffered and self._deadline is None:
            self._set_deadline(MESSAGE_SECONDS)
        if self._channel.unclaimed and not self._channel.buffered:
            raise ChannelError("descriptors came that no message announces")  # one may be the peer's own end

    def _set_deadline(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        why = "a message did not arrive whole in time"
        self._deadline = None if seconds is None else self._loop.call_later(seconds, self._refuse, why)

    def _refuse(self, why: str) -> None:
        log.info("connection closed: %s", why)
        self.cancel()

    def _end_of_stream(self) -> None:
        """The peer sends no more. Gone altogether, its streams end; calls that want no answer are still made."""
        self._pause()
        self._ended = True
        self._arrived.set()
        if not self._peer_gone():
            return
        self._waiting = deque(entry for entry in self._waiting if self._keep(entry))
        if self._current is not None and not self._current_is_oneway:
            self._current.cancel()

    def _keep(self, entry: tuple[Message, tuple[int, ...]]) -> bool:
        message, fds = entry
        if message.get("oneway") is True:
            return True
        close_all(fds)
        return False

    def _peer_gone(self) -> bool:
        poll = select.poll()
        poll.register(self._channel.sock, 0)
        return any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))

    async def _serve(self) -> None:
        while True:
            if not self._waiting:
                if self._ended:
                    return
                self._arrived.clear()
                await self._arrived.wait()
                continue
            message, fds = self._waiting.popleft()
            if len(self._waiting) < MAX_WAITING_CALLS // 2:
                self._take_buffered()
            await self._answer(Call(self, message, fds))
            await asyncio.sleep(0)  # so that a peer with many calls does not starve the others

    def _take_buffered(self) -> None:
        """What was held back while too many calls waited."""
        if self._channel.buffered and not self._reading:
            try:
                self._take()
            except ChannelError as error:
                self._refuse(str(error))
            self._count_unread()
        if len(self._waiting) < MAX_WAITING_CALLS:
            self._resume()

    async def _answer(self, call: Call) -> None:
        """Run the call as a task of its own, so that it can be cancelled without the connection's reader."""
        self._current_is_oneway = call.oneway
        self._current = self._loop.create_task(self._call(call))
        try:
            await self._current
        except asyncio.CancelledError:
            self._current.cancel()
            if not self._current.done():
                await asyncio.wait([self._current])
            if not self._ended:
                raise
        finally:
            self._current = None
            call.close_descriptors()  # also where it was cancelled before it began

    async def _call(self, call: Call) -> None:
        try:
            message, fds = await self._server.service.answer(call)
            try:
                if not call.oneway:
                    await self._deliver(message, fds)
            finally:
                close_all(fds)
        except OSError as error:
            self._refuse(f"answer not delivered: {error}")
        finally:
            call.close_descriptors()

    async def _deliver(self, message: Message, fds: tuple[int, ...]) -> None:
        try:
            await self.send(message, fds)
        except OversizeError as error:
            await self.send(self._server.service.failure(WireError(f"the answer cannot be sent: {error}")), ())

    async def send(self, message: Message, fds: tuple[int, ...]) -> None:
        """Send one message whole, waiting for the peer to read. Raises OSError when it does not or is gone."""
        await send_message(self._channel, message, fds, SEND_SECONDS)

    def _close(self, task: asyncio.Task[None]) -> None:
        self._pause()
        self._ended = True
        self._set_deadline(None)
        self._server.unread -= self._counted
        for _, fds in self._waiting:
            close_all(fds)
        self._waiting.clear()
        self._channel.close()
        self._server.forget(self)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("connection failed", exc_info=error)


class Server:
    """Accepts connections on a listening socket, from `uid` and nobody else, until `close`."""

    def __init__(self, service: Service, listener: socket.socket, *, uid: int | None = None) -> None:
        self.service = service
        self.unread = 0
        self._listener = listener
        self._uid = os.geteuid() if uid is None else uid
        self._connections: set[Connection] = set()
        self._loop = asyncio.get_running_loop()
        listener.setblocking(False)
        self._listen()

    @property
    def connections(self) -> int:
        """How many peers are connected."""
        return len(self._connections)

    def forget(self, connection: Connection) -> None:
        """A connection has closed itself."""
        self._connections.discard(connection)

    def _listen(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(64):
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:  # out of descriptors: let some be closed first
                log.warning("accept: %s", error)
                self._loop.remove_reader(self._listener)
                self._loop.call_later(0.2, self._listen)
                return
            self._admit(sock)

    def _admit(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        if len(self._connections) >= MAX_CONNECTIONS:
            log.warning("more than %d connections: one is turned away", MAX_CONNECTIONS)
            sock.close()
        elif not self._is_allowed(sock):
            denied = {"error": f"{VARLINK}.PermissionDenied", "parameters": {}}
            sock.send(json.dumps(denied).encode() + b"\0")
            sock.close()
        else:
            self._connections.add(Connection(self, sock))

    def _is_allowed(self, sock: socket.socket) -> bool:
        """Our own user, and no process of a guest: root in a guest may find the socket through a volume."""
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, _ = _CREDENTIALS.unpack(raw)
        try:
            return uid in (0, self._uid) and os.readlink(f"/proc/{pid}/ns/pid") == os.readlink("/proc/self/ns/pid")
        except OSError:
            return False  # it has gone already, or is of a namespace that we cannot see

    async def close(self) -> None:
        """Accept no more and end every connection; what the calls have begun is left as it is."""
        self._loop.remove_reader(self._listener)
        self._listener.close()
        for connection in list(self._connections):
            connection.cancel()
        while self._connections:
            await asyncio.sleep(0.005)


def listen(path: str, *, mode: int = 0o600) -> socket.socket:
    """A listening socket that appears at `path` complete with its mode, over whatever was there. Raises OSError.

    The name is given through the folder's descriptor, because a socket's address holds 107 bytes only.
    """
    folder, name = os.path.split(path)
    temporary = f"{name}.{os.getpid()}"
    directory = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)
        sock.bind(f"/proc/self/fd/{directory}/{temporary}")
        os.chmod(temporary, mode, dir_fd=directory)
        sock.listen(1024)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        sock.close()
        raise
    finally:
        os.close(directory)
    return sock
