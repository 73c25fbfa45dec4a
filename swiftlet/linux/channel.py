"""Messages over a Unix stream socket in varlink's framing: NUL-terminated JSON, file descriptors alongside.

Used by the command, the daemon and the launcher alike. The command must start fast, so nothing is imported
but C modules.
A message that comes with descriptors says how many in its top-level member `fds`; they are sent with the
message's first byte. What the messages mean is left to the layers above.
"""

from __future__ import annotations

import os
import sys

from swiftlet.linux.lean import socket
from swiftlet.linux.message import decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_MESSAGE = 8 << 20
"""Bytes of one message; a longer one is refused before it is buffered whole."""

MAX_FDS = 200
"""Descriptors in one message (the kernel's SCM_MAX_FD is 253)."""

_CHUNK = 65536

_ADDRESS_BYTES = 107

Message = dict[str, "Any"]


class ChannelError(OSError):
    """The peer sent something that is no message."""


class OversizeError(ChannelError):
    """A message that no peer would take; nothing of it was sent."""


class Channel:
    """One end of a connection. Blocking or not is the socket's own setting.

    Received descriptors are close-on-exec and belong to the caller of `receive`.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._input = bytearray()
        self._scanned = 0
        self._descriptors: list[int] = []
        self.closed = False

    def fileno(self) -> int:
        """The socket's descriptor, for polling."""
        return self.sock.fileno()

    @property
    def buffered(self) -> int:
        """Bytes that have arrived and belong to no message taken yet."""
        return len(self._input)

    @property
    def unclaimed(self) -> int:
        """Descriptors that have arrived and were announced by no message taken yet."""
        return len(self._descriptors)

    def send(self, message: Message, fds: tuple[int, ...] = ()) -> None:
        """Send one message whole. Raises OSError when the peer is gone or does not read, OversizeError."""
        data = memoryview(pack(message, fds))
        if fds:
            numbers = b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)
            data = data[self.sock.sendmsg([data], [rights], socket.MSG_NOSIGNAL) :]
        while data:
            data = data[self.sock.send(data, socket.MSG_NOSIGNAL) :]

    def receive(self) -> tuple[Message, tuple[int, ...]] | None:
        """The next message and its descriptors; None when the peer has closed.

        On a non-blocking socket raises BlockingIOError until a message is complete. Raises ChannelError on
        anything that is not a JSON object, is too long, or announces descriptors that did not come.
        """
        while True:
            message = self.take()
            if message is not None:
                return message
            if not self.fill():
                return None

    def fill(self) -> bool:
        """Read once from the socket into the buffer; False at the end of the stream."""
        if len(self._input) > MAX_MESSAGE:
            raise ChannelError(f"message longer than {MAX_MESSAGE} bytes")
        space = socket.CMSG_SPACE(MAX_FDS * 4)
        data, ancillary, flags, _ = self.sock.recvmsg(_CHUNK, space, socket.MSG_CMSG_CLOEXEC)
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                self._descriptors.extend(memoryview(payload[: len(payload) & ~3]).cast("i"))
        if flags & socket.MSG_CTRUNC or len(self._descriptors) > MAX_FDS:
            raise ChannelError("too many descriptors")
        self._input += data
        if not data:
            self.closed = True
        return bool(data)

    def take(self) -> tuple[Message, tuple[int, ...]] | None:
        """A message that is already buffered, or None."""
        end = self._input.find(0, self._scanned)
        if end < 0:
            self._scanned = len(self._input)
            return None
        raw = bytes(self._input[:end])
        del self._input[: end + 1]
        self._scanned = 0
        message = _parse(raw)
        count = message.get("fds", 0)
        if type(count) is not int or not 0 <= count <= len(self._descriptors):
            raise ChannelError("announced descriptors did not come")
        taken = tuple(self._descriptors[:count])
        del self._descriptors[:count]
        return message, taken

    def close(self) -> None:
        """Close the socket and every descriptor that nobody took."""
        while self._descriptors:
            os.close(self._descriptors.pop())
        self.sock.close()
        self.closed = True


def pack(message: Message, fds: tuple[int, ...]) -> bytes:
    """A message as it is sent. Raises OversizeError: a peer that was sent so much would end the connection."""
    if len(fds) > MAX_FDS:
        raise OversizeError(f"{len(fds)} descriptors are more than the {MAX_FDS} of one message")
    data = encode({**message, "fds": len(fds)} if fds else message) + b"\0"
    if len(data) > MAX_MESSAGE:
        raise OversizeError(f"a message of {len(data)} bytes is longer than {MAX_MESSAGE}")
    return data


def _parse(raw: bytes) -> Message:
    try:
        message = decode(raw)
    except (ValueError, RecursionError) as error:
        raise ChannelError(f"not JSON: {error}") from None
    if not isinstance(message, dict):
        raise ChannelError("not a JSON object")
    return message


def connect(path: str) -> Channel:
    """Connect to a Unix socket by path, however long: an address holds 107 bytes, a descriptor's link is short."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    folder = -1
    try:
        address = path
        if len(os.fsencode(path)) > _ADDRESS_BYTES:
            folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            address = f"/proc/self/fd/{folder}/{os.path.basename(path)}"
        sock.connect(address)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        if folder >= 0:
            os.close(folder)
    return Channel(sock)
