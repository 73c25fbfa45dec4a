"""The launcher's ends of a virtual machine's channels, and what its guest has reported. docs/vms.md has the protocol.

Orders go to the guest's first process, and its reports come, through a pair of sockets. QEMU's monitor has a socket in
the guest's folder (and so has its debugger's end, where a start is looked at), made here so that QEMU, which nobody
trusts, makes none.
Imports the standard library and `swiftlet.linux` only.
"""

from __future__ import annotations

import os

from swiftlet.guest.process import close_all
from swiftlet.linux.lean import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ORDERS_BYTES = 4 << 20
"""What the socket is made to hold: orders are written before anybody reads them."""

_SO_SNDBUFFORCE = 32

_SHOWN = 12
"""Lines of a console that are shown when a start fails."""

_LINE_BYTES, _FAILURES = 512, 8
"""What is kept of what a guest reports, which may be anything."""


_STARVED = "Out of memory: Killed process"
"""How a guest's kernel says that it killed somebody for want of memory (mm/oom_kill.c)."""

_SIGKILL = 9


class Channels:
    """sock: where orders are written and reports are read. given: name -> the machine's own end.

    script: the other end of a monitor that was told everything in advance; its answers are never read.
    waits: it was started ahead, and has not been told to go on; see `begin`. resting: it stands still by now. held: its
    guest has told that it holds its workload.
    """

    def __init__(
        self, state_dir: str, names: list[str], orders: str, script: str, *, waits: bool = False, halt: str = ""
    ) -> None:
        """halt: what to tell the monitor when the guest has done its orders, of a machine that is then to wait.

        Raises OSError, ValueError when there are more orders than the socket holds.
        """
        self.given: dict[str, int] = {}
        self.sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.given["orders"] = theirs.detach()
        self.console = -1
        self.script: socket.socket | None = None
        self.started = False
        self.waits = waits
        self.resting = waits and not halt
        self.held = False
        self._halt = halt
        self.code = -1
        self.failures: list[str] = []
        self._line = b""
        try:
            if script:
                self.script, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
                self.given["script"] = theirs.detach()
                self.script.send(script.encode())
            self.sock.setblocking(False)
            self._tell(orders)
            self._make(state_dir, names)
        except BaseException:
            self.close()
            raise

    def begin(self, orders: str, script: str = "") -> None:
        """Say what the guest is to do, and more to a monitor that has a script. Raises OSError, ValueError as above."""
        self.waits = False
        self._tell(orders)
        if self.script is not None and script:
            self.script.send(script.encode(), socket.MSG_NOSIGNAL)

    def _tell(self, orders: str) -> None:
        told = orders.encode()
        if len(told) > 1 << 16:
            self.sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _ORDERS_BYTES)
        try:
            whole = self.sock.send(told, socket.MSG_NOSIGNAL) == len(told)
        except BlockingIOError:
            whole = False
        if not whole:
            raise ValueError(f"arguments and variables of {len(told)} bytes are too much for a machine")

    def _make(self, state_dir: str, names: list[str]) -> None:
        path = f"{state_dir}/console"
        flags = os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self.given["console"] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | flags, 0o600)
        self.console = os.open(path, os.O_RDWR | os.O_APPEND | flags)
        folder = os.open(state_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in names:
                if name in ("monitor", "debugger"):
                    self.given[name] = listening(folder, f"{name}.sock")
        finally:
            os.close(folder)

    def order(self, key: str, *fields: str) -> None:
        """Send one order (`guest.orders`). Raises OSError when the guest does not take any more."""
        told = f"{key}{len(fields)}" + "".join(f"{field}\0" for field in fields)
        self.sock.send(told.encode(), socket.MSG_NOSIGNAL)

    def take_reports(self) -> bool:
        """Take what the guest has reported; False when it will report no more."""
        try:
            data = self.sock.recv(1 << 16)
        except BlockingIOError:
            return True
        except OSError:
            return False
        *lines, self._line = (self._line + data).split(b"\n")
        self._line = self._line[-_LINE_BYTES:]
        for line in lines:
            self._report(line[:_LINE_BYTES].decode(errors="replace"))
        return bool(data)

    def _report(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if line in ("started", "said started"):
            self.started = True
        elif line == "said held":
            self.held = True
        elif line == "said ahead" and self._halt and not self.resting:
            self._rest()
        elif word == "exited" and self.code < 0 and rest.isdigit() and int(rest) < 256:
            self.code = int(rest)
        elif word == "failed" and len(self.failures) < _FAILURES:
            self.failures.append(rest)

    def _rest(self) -> None:
        assert self.script is not None
        try:
            self.script.send(self._halt.encode(), socket.MSG_NOSIGNAL)
        except OSError:
            return  # it has just ended
        self.resting = True

    def why_not_started(self) -> str:
        """What is known of a machine that ended before its workload began: the last of its console."""
        if self.failures:
            return f"the machine could not be set up: {self.failures[0]}"
        said = _tail(self.console)[-_SHOWN:]
        if not said:
            return "the machine ended before the workload began, and its console is empty"
        return "the machine ended before the workload began; the last of its console:\n" + "\n".join(said)

    def close_given(self) -> None:
        """Close the machine's own ends, which it has by now."""
        close_all(list(self.given.values()))
        self.given.clear()

    def close(self) -> None:
        """Close everything."""
        self.close_given()
        self.sock.close()
        if self.script is not None:
            self.script.close()
        if self.console >= 0:
            os.close(self.console)
            self.console = -1

    def fileno(self) -> int:
        """Where reports come from."""
        return int(self.sock.fileno())


def listening(folder: int, name: str) -> int:
    """A listening socket at a name in a folder, whatever an earlier start has left there."""
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        pass
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    listener.bind(f"/proc/self/fd/{folder}/{name}")
    os.chmod(name, 0o600, dir_fd=folder)
    listener.listen(1)
    return int(listener.detach())


def _tail(fd: int) -> list[str]:
    """The last lines of a console."""
    size = os.fstat(fd).st_size
    text = os.pread(fd, 4096, max(0, size - 4096)).decode(errors="replace")
    return [line.strip() for line in text.splitlines() if line.strip()]


def exit_code(leaving: dict[str, Any], channels: Channels) -> dict[str, Any]:
    """How the guest ended, from how its machine did: by its own word, or for want of one by the machine's."""
    if channels.code >= 0:
        number = channels.code - 128 if 128 < channels.code <= 192 else 0
        starved = number == _SIGKILL and any(_STARVED in line for line in _tail(channels.console))
        counted = {"oom": True, "oom_kills": 1} if starved else {}
        return {**leaving, **counted, "code": channels.code, "signal": number, "reason": ""}
    if leaving["signal"]:
        return leaving
    said = _tail(channels.console)
    reason = f"the machine ended by itself: {said[-1]}" if said else "the machine ended by itself"
    return {**leaving, "code": 255, "reason": reason[:300]}
