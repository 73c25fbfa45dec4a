"""A further command in a virtual machine: a process beside it that carries bytes between the caller and a port.

It stands for the command: it is started and watched as a command in a container is, runs in the machine's control
groups, and leaves with the command's exit code. Frames on the port are a type, a length in two bytes (little-endian)
and so many bytes (docs/vms.md). Imports the standard library and `swiftlet.linux` only.
"""

from __future__ import annotations

import fcntl
import os
import select

from swiftlet.guest import stage
from swiftlet.guest.machinestage import make_raw, size_order
from swiftlet.linux import namespace, syscall
from swiftlet.linux.lean import signal, socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_CHUNK = 4096
_TIOCSCTTY = 0x540E


def enter_machine(guest: stage.Guest) -> None:
    """See what QEMU sees: nothing of the host's, and terminals of its own."""
    syscall.setns(guest.target, namespace.NEWNS)
    os.chdir("/")


def lead_terminal(guest: stage.Guest) -> None:
    """Begin a session, with the terminal if there is one: whoever leads it hears when its size changes.

    The terminal only carries bytes; the one in the guest does what terminals do.
    """
    os.setsid()
    if guest.bundle["tty"]:
        make_raw(0)
        fcntl.ioctl(0, _TIOCSCTTY, 0)


def carry(guest: stage.Guest) -> NoReturn:
    """Send the command, then move bytes until the guest tells how it ended. Nothing else is kept open."""
    port = guest.port
    assert port is not None
    number = port.fileno()
    syscall.close_range(3, number - 1) if number > 3 else None
    syscall.close_range(number + 1)
    os._exit(_Relay(port, has_input=guest.has_input).run(guest.bundle["orders"].encode()))


class _Relay:
    """port: connected to the machine's. Standard input, output and error are the caller's."""

    def __init__(self, port: socket.socket, *, has_input: bool) -> None:
        self.port = port
        self.poll = select.poll()
        self.poll.register(port.fileno(), select.POLLIN)
        if has_input:
            self.poll.register(0, select.POLLIN)
        self.received = b""

    def run(self, orders: bytes) -> int:
        for start in range(0, len(orders), _CHUNK):
            self._send(b"S", orders[start : start + _CHUNK])
        if os.isatty(0):
            signal.signal(signal.SIGWINCH, lambda *_: self._send(b"S", size_order(0)))
            self._send(b"S", size_order(0))
        while True:
            for fd, _ in self.poll.poll():
                if fd == 0:
                    self._take_input()
                elif (code := self._take_frames()) is not None:
                    return code

    def _take_input(self) -> None:
        try:
            data = os.read(0, _CHUNK)
        except OSError:
            data = b""
        if not data:
            self.poll.unregister(0)
        self._send(b"I" if data else b"E", data)

    def _take_frames(self) -> int | None:
        """Give on what the command has written; its exit code when that comes."""
        data = self.port.recv(1 << 16)
        if not data:
            return 255  # the machine has ended
        self.received += data
        while len(self.received) >= 3:
            length = int.from_bytes(self.received[1:3], "little")
            if len(self.received) < 3 + length:
                break
            kind, content = self.received[:1], self.received[3 : 3 + length]
            self.received = self.received[3 + length :]
            if kind == b"X":
                return int(content) & 255 if content.isdigit() else 255
            self._give(2 if kind == b"R" else 1, content)
        return None

    def _give(self, fd: int, content: bytes) -> None:
        try:
            while content:
                content = content[os.write(fd, content) :]
        except OSError:
            return  # nobody reads it any more; the command goes on

    def _send(self, kind: bytes, content: bytes) -> None:
        self.port.sendall(kind + len(content).to_bytes(2, "little") + content)


def outlive_readers(guest: stage.Guest) -> None:
    """A caller that has gone must not end this with its pipe."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)


RELAY = (
    stage.join_cgroups,
    enter_machine,
    stage.open_console,
    stage.take_stdio,
    lead_terminal,
    outlive_readers,
    stage.drop_privileges,
    stage.get_ready,
    carry,
)
