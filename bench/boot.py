"""One machine, from before QEMU is started to what is waited for, with the moments that can be seen from outside.

Moments in milliseconds since the start: `kernel`, the first byte on the console (only where the kernel is told to
write early); `process`, the kernel says that it runs its first process; `systemd`; `login`, the prompt; `ready`, the
service has answered a request. A machine that does not get there in time shows the last lines of its console.
"""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import socket
import time
from collections.abc import Collection, Mapping
from typing import NamedTuple

from bench.tap import GUEST, HOST, READY_PORT
from swiftlet.model.bundle import FIRST_DESCRIPTOR

PATTERNS: Mapping[str, re.Pattern[bytes]] = {
    "process": re.compile(rb"Run \S+ as init process"),
    "systemd": re.compile(rb"systemd\[1\]: systemd \d"),
    "login": re.compile(rb"login: "),
}

ANSWER_PORT = 8080

_HIGH = 200
"""Numbers from here on are out of the way of those that QEMU inherits."""

_SHOWN = 12
_ANSWER_SECONDS = 5.0
_PANIC = "Kernel panic"


class Start(NamedTuple):
    """A machine to start: QEMU's command line, what it inherits in the order of the numbers, its guest's orders.

    traced: its kernel writes everything to the console, from its first instructions on.
    """

    name: str
    argv: tuple[str, ...]
    descriptors: tuple[str, ...]
    orders: str = ""
    traced: bool = False


class Console:
    """What a machine has written, and when which pattern was first seen."""

    def __init__(self, traced: bool) -> None:
        self._traced = traced
        self._text = b""
        self.seen: dict[str, float] = {}

    def take(self, data: bytes, milliseconds: float) -> None:
        """Take what was read at a moment."""
        if self._traced and data:
            self.seen.setdefault("kernel", milliseconds)
        self._text += data
        for name, pattern in PATTERNS.items():
            if name not in self.seen and pattern.search(self._text):
                self.seen[name] = milliseconds

    @property
    def tail(self) -> str:
        """The last lines."""
        lines = [line.strip() for line in self._text.decode(errors="replace").splitlines()]
        return "\n".join([line for line in lines if line][-_SHOWN:]) or "(nothing)"


class Machine:
    """A running machine, a context manager; whatever happens, it is gone afterwards. tap: a descriptor."""

    def __init__(self, start: Start, tap: int) -> None:
        self._start = start
        self._tap = tap
        self._own: list[int | socket.socket] = []
        self._pid = 0
        self.console = Console(start.traced)

    def __enter__(self) -> Machine:
        try:
            self._teller = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._own.append(self._teller)
            self._teller.bind((HOST, READY_PORT))
            given = [self._made(name) for name in self._start.descriptors]
            high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _HIGH) for fd in given]
            self._own += high
            self._begin = time.perf_counter()
            self._pid = os.posix_spawn(
                self._start.argv[0],
                self._start.argv,
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
                    (os.POSIX_SPAWN_DUP2, high[self._start.descriptors.index("console")], 1),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                    *((os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(high, FIRST_DESCRIPTOR)),
                ],
            )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        for each in self._own:
            if isinstance(each, int):
                os.close(each)
            else:
                each.close()

    @property
    def pid(self) -> int:
        """QEMU's."""
        return self._pid

    def _made(self, name: str) -> int:
        """The machine's end of what it inherits under a name; the other end is kept here."""
        if name == "tap":
            return self._tap
        if name == "console":
            reader, writer = os.pipe2(os.O_CLOEXEC)
            self._reader = reader
            self._own += [reader, writer]
            return writer
        if name == "orders":
            ours, theirs = socket.socketpair()
            ours.send(self._start.orders.encode())
            self._own += [ours, theirs]
            return theirs.fileno()
        if name in ("output", "errors"):
            self._own.append(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC))
            return int(self._own[-1])  # type: ignore[arg-type]
        listener = socket.socket(socket.AF_UNIX)
        self._own.append(listener)
        listener.bind("")  # an abstract name of the kernel's choice
        listener.listen(1)
        return listener.fileno()

    def wait(self, wanted: Collection[str], seconds: float) -> dict[str, float]:
        """Wait until all of these moments have been; every moment that was seen. Raises OSError with the console."""
        deadline = self._begin + seconds
        seen = self.console.seen
        watched = select.poll()
        for handle in (self._reader, self._teller.fileno()):
            watched.register(handle, select.POLLIN)
        while not set(wanted) <= seen.keys():
            left = deadline - time.perf_counter()
            if left <= 0:
                raise self._failed(f"no {', '.join(set(wanted) - seen.keys())} after {seconds:.0f} s")
            for handle, _ in watched.poll(min(left, 0.5) * 1000):
                self._take(handle)
            if _PANIC in self.console.tail:
                raise self._failed("its kernel gave up")
            if os.waitpid(self._pid, os.WNOHANG)[0]:
                self._pid = 0
                while select.select([self._reader], [], [], 0)[0]:
                    self._take(self._reader)
                raise self._failed("QEMU ended")
        return dict(seen)

    def _take(self, handle: int) -> None:
        if handle == self._reader:
            self.console.take(os.read(self._reader, 1 << 16), self._now())
            return
        self._teller.recv(64)
        if "ready" not in self.console.seen and answers(GUEST, ANSWER_PORT):
            self.console.seen["ready"] = self._now()

    def wait_for_port(self, name: str, port: int, path: str, seconds: float) -> float:
        """The moment at which another service has answered; the guest's network must be up. Raises OSError."""
        while not answers(GUEST, port, path):
            if self._now() > seconds * 1000:
                raise self._failed(f"nobody answers on port {port} after {seconds:.0f} s")
            time.sleep(0.005)
        self.console.seen[name] = self._now()
        return self.console.seen[name]

    def _now(self) -> float:
        return (time.perf_counter() - self._begin) * 1000

    def _failed(self, problem: str) -> OSError:
        return OSError(f"{self._start.name}: {problem}; the last of its console:\n{self.console.tail}")


def answers(address: str, port: int, path: str = "/") -> bool:
    """Whether a service answers a request with 200 and a whole page."""
    request = f"GET {path} HTTP/1.0\r\nHost: bench\r\n\r\n".encode()
    text = b""
    try:
        with socket.create_connection((address, port), timeout=_ANSWER_SECONDS) as peer:
            peer.sendall(request)
            while True:
                head, _, body = text.partition(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: (\d+)", head)
                if length and len(body) >= int(length[1]):
                    return b" 200 " in head.partition(b"\r\n")[0]
                data = peer.recv(1 << 16)
                if not data:
                    return False
                text += data
    except OSError:
        return False
