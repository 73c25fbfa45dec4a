"""A machine looked at from outside, by the protocol that QEMU serves for debuggers: stop, read registers, go on.

While it stands still its own clocks do too, so that it does not notice. Chosen over QEMU's monitor because it is
faster, and because under emulation only a machine that was stopped has all of its registers in memory: what the monitor
tells of one that runs is where it last left a block of code.
Protocol: "Debugging with GDB", appendix E.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from typing import NamedTuple

from swiftlet.model.error import LaunchError

_INTERRUPT = b"\x03"
_REGISTERS = struct.Struct("<17Q7I8Q")
"""rax to r15 and rip; flags and segments; bases of fs, gs and the kernel's gs, cr0, cr2, cr3, cr4, cr8: as QEMU 7.2 has
them in gdb-xml/i386-64bit.xml."""

ANSWER_SECONDS = 10.0

_MOST_BYTES = 1 << 18
"""That are kept of what comes: a processor's registers are about 1,200."""

_NONSENSE = "the machine that is looked into cannot be: QEMU's debugging end does not keep to its protocol"
_SILENT = "the machine that is looked into does not answer: QEMU's debugging end is silent"


class Registers(NamedTuple):
    """What is needed of a processor's state. ring: 0 in the kernel, 3 in a program."""

    ip: int
    sp: int
    bp: int
    ring: int
    cr0: int
    cr3: int
    cr4: int


class Stub:
    """A machine's debugging end. Everything raises EOFError when the machine has ended, LaunchError when it hangs.

    What comes from there is not believed: QEMU may be in the hands of its guest. Then that, too, is a LaunchError.
    """

    def __init__(self, sock: socket.socket) -> None:
        """Stops the machine, as QEMU does for whoever connects: it waits for `resume`."""
        self._sock = sock
        self._input = b""
        self._put(_INTERRUPT)  # it may run already; where it stands still, this means nothing
        self._send(b"?")
        self._ask(b"qC")  # whatever was told of its standing still comes before this answer

    def registers(self, processor: int) -> Registers:
        """Of a processor of the stopped machine, counted from 0."""
        self._ask(b"Hg%x" % (processor + 1))
        try:
            found = _REGISTERS.unpack_from(bytes.fromhex(self._ask(b"g").decode()))
        except (ValueError, struct.error):
            raise LaunchError(_NONSENSE) from None
        return Registers(found[16], found[7], found[6], found[18] & 3, found[27], found[29], found[30])

    def set_breakpoint(self, address: int) -> None:
        """Have the stopped machine stop at an instruction."""
        self._ask(b"Z1,%x,1" % address)

    def clear_breakpoint(self, address: int) -> None:
        """The opposite."""
        self._ask(b"z1,%x,1" % address)

    def resume(self) -> None:
        """Let it run."""
        self._send(b"c")

    def stopped_within(self, seconds: float) -> bool:
        """Whether the running machine stops by itself, at a breakpoint, in this time."""
        until = time.monotonic() + seconds
        while b"$" not in self._input:  # what comes besides are acknowledgements
            left = max(0.0, until - time.monotonic())
            if not select.select([self._sock], [], [], left)[0]:
                return False
            self._fill(until + ANSWER_SECONDS)
        self._stopped()
        return True

    def stop(self) -> None:
        """Stop the running machine."""
        self._put(_INTERRUPT)
        self._stopped()

    def close(self) -> None:
        """Leave; the machine goes on."""
        self._sock.close()

    def _stopped(self) -> None:
        until = time.monotonic() + ANSWER_SECONDS
        while not (packet := self._receive(until)).startswith((b"T", b"S")):
            if packet.startswith((b"W", b"X")):
                raise EOFError("the machine has ended")

    def _ask(self, what: bytes) -> bytes:
        until = time.monotonic() + ANSWER_SECONDS
        self._send(what)
        while (answer := self._receive(until)).startswith((b"T", b"S")):
            pass  # it was told twice that it stands still
        if answer.startswith(b"E") and len(answer) == 3:
            raise LaunchError(f"QEMU's debugging end refuses {what.decode()}")
        return answer

    def _send(self, what: bytes) -> None:
        self._put(b"$%b#%02x" % (what, sum(what) & 255))

    def _put(self, data: bytes) -> None:
        try:
            self._sock.settimeout(ANSWER_SECONDS)
            self._sock.sendall(data)
        except ConnectionError:
            raise EOFError("the machine has ended") from None
        except TimeoutError:
            raise LaunchError(_SILENT) from None

    def _receive(self, until: float) -> bytes:
        """The next packet. until: by the monotonic clock."""
        while True:
            _, dollar, rest = self._input.partition(b"$")
            content, hash_, sum_ = rest.partition(b"#")
            if dollar and hash_ and len(sum_) >= 2:
                self._input = sum_[2:]
                if time.monotonic() > until:
                    raise LaunchError(_SILENT)
                self._put(b"+")
                return content
            self._fill(until)

    def _fill(self, until: float) -> None:
        left = until - time.monotonic()
        if left <= 0:
            raise LaunchError(_SILENT)
        try:
            self._sock.settimeout(left)
            data = self._sock.recv(1 << 16)
        except ConnectionError:
            data = b""
        except TimeoutError:
            raise LaunchError(_SILENT) from None
        if not data:
            raise EOFError("the machine has ended")
        self._input += data
        if len(self._input) > _MOST_BYTES:
            raise LaunchError(_NONSENSE)
