"""`linux.channel` under asyncio: messages and descriptors over a non-blocking socket, without asyncio's streams.

`send_message` is used by the server as well. What the messages are is left to the caller.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable

from swiftlet.linux.channel import Channel, Message, OversizeError, pack
from swiftlet.model.error import InputError

SEND_SECONDS = 30.0
"""A peer that takes nothing for this long is given up."""


async def send_message(
    channel: Channel,
    message: Message,
    fds: tuple[int, ...] = (),
    seconds: float = SEND_SECONDS,
    waiting: set[asyncio.Future[None]] | None = None,
) -> None:
    """Send one message whole, waiting for the peer to read. Does not suspend when there is room for all of it.

    Raises OSError when the peer is gone or reads nothing, OversizeError before anything is sent. Two sends on one
    channel must not overlap. waiting: holds what is waited for, so that whoever closes the channel can end that.
    """
    data = memoryview(pack(message, fds))
    sock = channel.sock
    while data:
        try:
            if fds:
                sent = socket.send_fds(sock, [data], list(fds), socket.MSG_NOSIGNAL)
            else:
                sent = sock.send(data, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            await _writable(sock, seconds, set() if waiting is None else waiting)
            continue
        fds = ()
        data = data[sent:]


async def _writable(sock: socket.socket, seconds: float, waiting: set[asyncio.Future[None]]) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_writer(sock, _fulfil, ready)
    waiting.add(ready)
    try:
        async with asyncio.timeout(seconds):
            await ready
    except TimeoutError:
        raise OSError("the peer reads nothing") from None
    finally:
        waiting.discard(ready)
        if sock.fileno() >= 0:
            loop.remove_writer(sock)


def _fulfil(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Wire:
    """A connection to a process of ours: `on_message` for each message, `on_end` once when it is over.

    Descriptors that come belong to `on_message`.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_message: Callable[[Message, tuple[int, ...]], None],
        on_end: Callable[[], None],
    ) -> None:
        sock.setblocking(False)
        self._channel = Channel(sock)
        self._on_message = on_message
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._sending = asyncio.Lock()
        self._waiting: set[asyncio.Future[None]] = set()
        self._loop.add_reader(sock, self._read)

    @property
    def closed(self) -> bool:
        """Whether the connection is over."""
        return self._channel.closed

    async def send(self, message: Message, fds: tuple[int, ...] = ()) -> None:
        """Send one message whole; several may be under way.

        Raises OSError; InputError, and the connection is as before, for more than a message holds.
        """
        async with self._sending:
            if self.closed:
                raise OSError("the connection is closed")
            try:
                await send_message(self._channel, message, fds, waiting=self._waiting)
            except OversizeError as error:
                hint = "fewer or shorter arguments, variables and volumes"
                raise InputError(f"too much for swiftlet's own wire: {error}", hint) from None
            except OSError:
                if self.closed:
                    raise OSError("the connection ended meanwhile") from None
                raise

    def close(self) -> None:
        """End it without calling `on_end`."""
        if self._channel.sock.fileno() >= 0:
            self._loop.remove_reader(self._channel.sock)
            self._loop.remove_writer(self._channel.sock)  # or the loop would take the number's next owner for it
            for ready in self._waiting:
                _fulfil(ready)
            self._channel.close()

    def _read(self) -> None:
        try:
            alive = self._channel.fill()
            while (taken := self._channel.take()) is not None:
                self._on_message(*taken)
                if self._channel.sock.fileno() < 0:
                    return
        except BlockingIOError:
            return
        except OSError:
            alive = False
        if not alive:
            self.close()
            self._on_end()


def close_all(fds: tuple[int, ...]) -> None:
    """Close descriptors."""
    for fd in fds:
        os.close(fd)
