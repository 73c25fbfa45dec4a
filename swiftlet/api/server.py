"""A varlink server over a Unix stream socket, with descriptors passed both ways; knows no method of its own.

asyncio's streams cannot pass descriptors, so this works on the raw non-blocking socket (`add_reader` and
`linux.channel`). Calls of one connection are answered one after the other, in order, as varlink demands;
connections do not wait for one another. Whatever arrives on a connection harms only that connection: it is
closed on anything that is no message, that is too long or too slow, or that nobody reads the answers of.
What the methods are and do is left to whoever fills the `Service`.
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
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec

from swiftlet.linux.channel import Channel, ChannelError, Message
from swiftlet.model.error import SwiftletError
from swiftlet.model.invalid import place_of
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

_VARLINK = "org.varlink.service"
_CREDENTIALS = struct.Struct("3i")


class CallFailed(Exception):
    """An error of varlink's own, such as MethodNotFound, with its parameters."""

    def __init__(self, name: str, **parameters: Any) -> None:
        super().__init__(name)
        self.name = f"{_VARLINK}.{name}"
        self.parameters = parameters


@dataclass(slots=True)
class Reply:
    """An answer; its descriptors belong to the server once it is returned or sent, and are closed when they are out."""

    parameters: Message = field(default_factory=dict)
    fds: tuple[int, ...] = ()


class Call:
    """One call being answered. Its descriptors are closed when it ends, or earlier by `close_descriptors`."""

    def __init__(self, connection: Connection, message: Message, fds: tuple[int, ...]) -> None:
        self._connection = connection
        self._message = message
        self.fds = fds

    @property
    def method(self) -> str:
        """The whole name; "" when the message has none."""
        name = self._message.get("method")
        return name if isinstance(name, str) else ""

    @property
    def parameters(self) -> Any:
        """What the caller sent as parameters, unchecked."""
        return self._message.get("parameters") or {}

    @property
    def more(self) -> bool:
        """Whether the caller takes several answers."""
        return self._message.get("more") is True

    @property
    def oneway(self) -> bool:
        """Whether the caller wants no answer at all."""
        return self._message.get("oneway") is True

    def close_descriptors(self) -> None:
        """Close what came with the call; done again at its end."""
        close_all(self.fds)
        self.fds = ()

    async def send(self, parameters: Message, fds: tuple[int, ...] = ()) -> None:
        """Send an answer that is not the last. `fds` are closed once sent, and also when that fails."""
        try:
            if not self.oneway:
                await self._connection.send({"parameters": parameters, "continues": True}, fds)
        finally:
            close_all(fds)


Parameters = TypeVar("Parameters")
Handler = Callable[[Call, Parameters], Awaitable[Reply]]


@dataclass(slots=True)
class Method(Generic[Parameters]):
    """parameters: the msgspec struct that a call's parameters are decoded into. streams: needs `more`."""

    parameters: type[Parameters]
    handler: Handler[Parameters]
    streams: bool = False


@dataclass(slots=True)
class Interface:
    """A varlink interface: its name, its description in varlink's own language, and its methods by short name."""

    name: str
    description: str
    methods: dict[str, Method[Any]]


class Service:
    """The interfaces that a server offers. Errors of the model travel as errors of `error_interface`."""

    def __init__(self, *, vendor: str, product: str, version: str, url: str, error_interface: str) -> None:
        self._about = {"vendor": vendor, "product": product, "version": version, "url": url}
        self._error_interface = error_interface
        self._interfaces: dict[str, Interface] = {}
        self.add(_own_interface(self))

    def add(self, interface: Interface) -> None:
        """Offer one more interface."""
        self._interfaces[interface.name] = interface

    def information(self) -> Message:
        """What GetInfo answers."""
        return {**self._about, "interfaces": list(self._interfaces)}

    def description(self, name: str) -> str:
        """An interface's description. Raises CallFailed."""
        interface = self._interfaces.get(name)
        if interface is None:
            raise CallFailed("InterfaceNotFound", interface=name)
        return interface.description

    async def answer(self, call: Call) -> tuple[Message, tuple[int, ...]]:
        """The last answer to a call and its descriptors, which the caller must close. Only cancellation gets out."""
        try:
            reply = await self._invoke(call)
        except CallFailed as error:
            return {"error": error.name, "parameters": error.parameters}, ()
        except SwiftletError as error:
            return self._failure(error), ()
        except OSError as error:
            return self._failure(SwiftletError(str(error))), ()
        except Exception as error:
            log.exception("%s failed", call.method)
            hint = "this is a fault of swiftlet; the daemon's log has more"
            return self._failure(SwiftletError(f"{call.method}: {type(error).__name__}: {error}", hint)), ()
        return {"parameters": reply.parameters}, reply.fds

    async def _invoke(self, call: Call) -> Reply:
        interface_name, _, name = call.method.rpartition(".")
        interface = self._interfaces.get(interface_name)
        if interface is None:
            raise CallFailed("InterfaceNotFound", interface=interface_name)
        method = interface.methods.get(name)
        if method is None:
            raise CallFailed("MethodNotFound", method=call.method)
        if method.streams and not (call.more or call.oneway):
            raise CallFailed("ExpectedMore")
        return await method.handler(call, decode_parameters(call.parameters, method.parameters))

    def _failure(self, error: SwiftletError) -> Message:
        told = {"message": str(error), "hint": error.hint, "exit_code": error.exit_code}
        return {"error": f"{self._error_interface}.{error.kind}", "parameters": told}


def decode_parameters(parameters: Any, into: type[Parameters]) -> Parameters:
    """Check parameters against a struct. Raises CallFailed naming the path, such as `$.guest`."""
    try:
        msgspec.json.encode(parameters)  # JSON can spell half a surrogate pair, which is no text
        return msgspec.convert(parameters, into)
    except UnicodeEncodeError:
        raise CallFailed("InvalidParameter", parameter="$", message="holds text that is not Unicode") from None
    except msgspec.ValidationError as error:
        path, complaint = place_of(error)
        raise CallFailed("InvalidParameter", parameter=path, message=complaint) from None


class _NoParameters(msgspec.Struct, forbid_unknown_fields=True):
    pass


class _InterfaceName(msgspec.Struct, forbid_unknown_fields=True):
    interface: str


_OWN_DESCRIPTION = """# What every varlink service answers: who it is and what it offers
interface org.varlink.service

method GetInfo() -> (vendor: string, product: string, version: string, url: string, interfaces: []string)

method GetInterfaceDescription(interface: string) -> (description: string)

error InterfaceNotFound (interface: string)
error MethodNotFound (method: string)
error MethodNotImplemented (method: string)
error InvalidParameter (parameter: string)
error PermissionDenied ()
error ExpectedMore ()
"""


def _own_interface(service: Service) -> Interface:
    async def information(call: Call, parameters: _NoParameters) -> Reply:
        return Reply(service.information())

    async def description(call: Call, parameters: _InterfaceName) -> Reply:
        return Reply({"description": service.description(parameters.interface)})

    methods: dict[str, Method[Any]] = {
        "GetInfo": Method(_NoParameters, information),
        "GetInterfaceDescription": Method(_InterfaceName, description),
    }
    return Interface(_VARLINK, _OWN_DESCRIPTION, methods)


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
                    await self.send(message, fds)
            finally:
                close_all(fds)
        except OSError as error:
            self._refuse(f"answer not delivered: {error}")
        finally:
            call.close_descriptors()

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
            denied = {"error": f"{_VARLINK}.PermissionDenied", "parameters": {}}
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
