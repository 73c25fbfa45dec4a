"""Watches one machine start, from outside: moments by the host's clock, and where its processors were in between.

A guest is known by the name that it will have: whoever watches is there before it is started. Nothing is asked of the
guest. With `looks` its machine was planned with a debugging end (`MachinePlace.watched`): it is stopped every few
milliseconds, its registers and the calls on its stack are read, and it goes on. Its own clocks stand still meanwhile,
so a time with the pauses taken out (`Recording.unpaused`) is nearly what it would have taken without them.
"""

from __future__ import annotations

import bisect
import contextlib
import hashlib
import itertools
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from swiftlet.guest import ram
from swiftlet.guest.gdbstub import Registers, Stub
from swiftlet.image.kernel.orc import Unwinder
from swiftlet.image.kernel.printk import Log, Record
from swiftlet.image.kernel.symbols import BASE, Symbols
from swiftlet.linux import cgroup
from swiftlet.model.bundle import Bundle, Machine
from swiftlet.model.error import LaunchError, SwiftletError
from swiftlet.node import record
from swiftlet.node.journal import FILE
from swiftlet.node.prepare import read_bundle

PERIOD_SECONDS = 0.002

DEADLINE_SECONDS = 90.0
AFTER_SECONDS = 1.0
"""So long a workload that publishes no port is still watched after it has begun."""

Value = TypeVar("Value")

_POLL_SECONDS = 0.0005
_CONNECT_SECONDS = 0.25
_ASK_AGAIN_SECONDS = 0.01
"""Between two attempts to reach a port: each that comes too early costs the guest an interrupt and a refusal."""

_PAGING = 1 << 31
_ENTRY = "pvh_start_xen"
"""The kernel's first instruction where QEMU starts its ELF image (arch/x86/platform/pvh/head.S)."""


class Kernel(NamedTuple):
    """What must be known of a kernel to look into it. unwinder: None where its stacks cannot be read."""

    symbols: Symbols
    unwinder: Unwinder | None


class Look(NamedTuple):
    """Where one processor was. ns: by the host's clock; weight_ns: of the guest's time since the look before.

    place: "firmware", "kernel" or "program". stack: addresses, the innermost first. page: of a program, the digest of
    the code's page, with which its file is found.
    """

    ns: int
    weight_ns: int
    place: str
    stack: tuple[int, ...]
    page: bytes = b""


class Recording:
    """What was seen of one start. moments: name -> wall clock, nanoseconds."""

    def __init__(self) -> None:
        self.moments: dict[str, int] = {}
        self.looks: list[Look] = []
        self.log: list[Record] = []
        self.pauses: list[tuple[int, int]] = []
        self.clock_offset_ns: int | None = None
        self._ends: list[int] = []
        self._sums: list[int] = []

    def pause(self, begin_ns: int, end_ns: int) -> None:
        """Note that the machine stood still."""
        self.pauses.append((begin_ns, end_ns))
        self._ends.append(end_ns)
        self._sums.append((self._sums[-1] if self._sums else 0) + end_ns - begin_ns)

    @property
    def paused_ns(self) -> int:
        """For how long it stood still."""
        return self._sums[-1] if self._sums else 0

    def unpaused(self, ns: int) -> int:
        """A moment, with all pauses before it taken out."""
        place = bisect.bisect_right(self._ends, ns)
        whole = self._sums[place - 1] if place else 0
        within = max(0, ns - self.pauses[place][0]) if place < len(self.pauses) else 0
        return ns - whole - within

    def note_clock(self, ns: int, guest_ns: int) -> None:
        """What the guest's clock has shown at least, at a moment: the nearest of many tells how the two differ."""
        if guest_ns:
            offset = self.unpaused(ns) - guest_ns
            known = self.clock_offset_ns
            self.clock_offset_ns = offset if known is None else min(known, offset)


def watch(guests: str, names: str, name: str, kernel: Kernel | None) -> tuple[Recording, Bundle]:
    """Watch until the workload serves, or has ended. guests, names: folders of the node. kernel: to look inside.

    Raises LaunchError when the guest does not come, or is none that can be watched.
    """
    seen = Recording()
    deadline = time.monotonic() + DEADLINE_SECONDS
    folder = f"{guests}/{_awaited(lambda: os.readlink(f'{names}/{name}'), deadline)}"
    bundle = _awaited(lambda: read_bundle(folder), deadline)
    if bundle.machine is None:
        raise LaunchError(f"guest {name} is no virtual machine")
    with contextlib.ExitStack() as stack:
        sock = _connected(f"{folder}/debugger.sock", deadline) if kernel else None
        pid = _hypervisor(bundle, seen, deadline)
        memory = stack.enter_context(contextlib.closing(_memory(pid, bundle.machine, deadline))) if kernel else None
        watcher = _Outside(folder, bundle, seen)
        stack.enter_context(watcher)
        if sock is None or kernel is None or memory is None:
            watcher.wait(deadline)
            return seen, bundle
        stack.callback(sock.close)
        with contextlib.suppress(EOFError):
            inside = _Inside(Stub(sock), kernel, memory, bundle.machine.processors, seen)
            with contextlib.suppress(EOFError):
                inside.run(watcher, deadline)
            seen.log = inside.records()
    return seen, bundle


class _Outside(threading.Thread):
    """What can be seen without looking inside: QEMU's monitor, the guest's journal, its service."""

    def __init__(self, folder: str, bundle: Bundle, seen: Recording) -> None:
        super().__init__(daemon=True)
        self._folder = folder
        self._ports = [port.guest for port in bundle.workload.ports if port.protocol == "tcp"]
        self._seen = seen
        self._left = threading.Event()
        self.done = threading.Event()

    def __enter__(self) -> _Outside:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self.join()

    def wait(self, deadline: float) -> None:
        """Until there is nothing more to wait for."""
        self.done.wait(max(0.0, deadline - time.monotonic()))

    def run(self) -> None:
        """The thread: never raises."""
        try:
            self._greeted()
            while not self._left.is_set() and not self._begun():
                self._left.wait(_POLL_SECONDS)
            if self._ports:
                self._serves()
            else:
                self._left.wait(AFTER_SECONDS)
        except (OSError, SwiftletError):
            pass  # the guest has gone, and with it its folder, or nobody listens there any more
        finally:
            self.done.set()

    def _greeted(self) -> None:
        with _connected(f"{self._folder}/monitor.sock", time.monotonic() + _CONNECT_SECONDS) as monitor:
            monitor.settimeout(DEADLINE_SECONDS)
            if monitor.recv(1 << 12):
                self._seen.moments["monitor"] = time.time_ns()

    def _begun(self) -> bool:
        with open(f"{self._folder}/{FILE}") as file:
            for line in file:
                change = json.loads(line) if line.endswith("\n") else {}
                self._seen.moments.setdefault(str(change.get("to", "")).lower(), int(change.get("time_ns", 0)))
        return "running" in self._seen.moments

    def _serves(self) -> None:
        """Until somebody listens on every published port, at the guest's own address."""
        place = record.read_network(self._folder)
        while self._ports and place is not None and not self._left.is_set():
            with contextlib.suppress(OSError):
                socket.create_connection((place.address, self._ports[0]), timeout=_CONNECT_SECONDS).close()
                self._ports.pop(0)
            if self._ports:
                self._left.wait(_ASK_AGAIN_SECONDS)
        if not self._ports:
            self._seen.moments["ready"] = time.time_ns()


class _Inside:
    """Looks into the machine through its debugging end."""

    def __init__(self, stub: Stub, kernel: Kernel, memory: ram.Ram, processors: int, seen: Recording) -> None:
        self._stub = stub
        self._stopped_ns = time.time_ns()
        self._kernel = kernel
        self._memory = memory
        self._processors = processors
        self._seen = seen
        self._table = (kernel.symbols.address("init_top_pgt") or BASE) - BASE
        self._cr4 = 0
        self._before = 0
        self._log = Log(kernel.symbols.address("prb") or 0, self._kernel_bytes)

    def run(self, watcher: _Outside, deadline: float) -> None:
        """Until the watcher has seen all, or the machine has ended (EOFError)."""
        entry = self._kernel.symbols.address(_ENTRY)
        if entry is not None:
            self._stub.set_breakpoint(entry - BASE)
        self._resume(self._stopped_ns)
        while not watcher.done.is_set() and time.monotonic() < deadline:
            if not self._stub.stopped_within(PERIOD_SECONDS):
                self._stub.stop()
            now = time.time_ns()
            self._look(entry, now)
            self._resume(now)

    def records(self) -> list[Record]:
        """What the kernel has noted, also of a machine that has ended: its memory is still there."""
        return self._log.records()

    def _resume(self, stopped_ns: int) -> None:
        self._before = time.time_ns()
        self._seen.pause(stopped_ns, self._before)
        self._stub.resume()

    def _look(self, entry: int | None, now: int) -> None:
        weight, moments = now - self._before, self._seen.moments
        for processor in range(self._processors):
            registers = self._stub.registers(processor)
            if entry is not None and registers.ip == entry - BASE and "kernel" not in moments:
                moments["kernel"] = now
                self._stub.clear_breakpoint(entry - BASE)
            self._seen.looks.append(self._look_at(registers, now, weight))
        self._seen.note_clock(now, self._log.newest_ns())

    def _look_at(self, registers: Registers, now: int, weight: int) -> Look:
        ip = registers.ip
        self._cr4 = registers.cr4 if registers.cr0 & _PAGING else self._cr4
        if registers.ring == 3:
            place = self._memory.place_of(ip, registers.cr3, registers.cr4)
            page = self._memory.physical(place & -ram.PAGE, ram.PAGE) if place is not None else b""
            return Look(now, weight, "program", (ip,), digest_of(page) if page else b"")
        if self._kernel.symbols.in_code(ip):
            unwinder = self._kernel.unwinder
            stack = unwinder.frames(ip, registers.sp, registers.bp, self._word) if unwinder else [ip]
            own = itertools.takewhile(self._kernel.symbols.in_code, stack)  # on entry to it the end is a program's
            return Look(now, weight, "kernel", tuple(own))
        if "kernel" in self._seen.moments and self._kernel.symbols.in_code(ip + BASE):
            return Look(now, weight, "kernel", (ip + BASE,))  # before it has mapped itself high
        return Look(now, weight, "kernel" if "kernel" in self._seen.moments else "firmware", (ip,))

    def _kernel_bytes(self, address: int, size: int) -> bytes:
        if BASE <= address < BASE + (1 << 30):
            return self._memory.physical(address - BASE, size)
        return self._memory.virtual(address, size, self._table, self._cr4)

    def _word(self, address: int) -> int | None:
        raw = self._kernel_bytes(address, 8)
        return int.from_bytes(raw, "little") if len(raw) == 8 else None


def digest_of(page: bytes) -> bytes:
    """By what a page of code is known."""
    return hashlib.blake2b(page, digest_size=16).digest()


def _awaited(found: Callable[[], Value | None], deadline: float) -> Value:
    """What is there sooner or later. Raises LaunchError after the deadline."""
    while True:
        with contextlib.suppress(OSError):
            if (value := found()) is not None:
                return value
        if time.monotonic() > deadline:
            raise LaunchError(f"the machine has not begun to start after {DEADLINE_SECONDS:.0f} s")
        time.sleep(_POLL_SECONDS)


def _connected(path: str, deadline: float) -> socket.socket:
    def connect() -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sock.connect(f"/proc/self/fd/{folder}/{os.path.basename(path)}")  # an address holds 107 bytes only
        except OSError:
            sock.close()
            raise
        finally:
            os.close(folder)
        return sock

    return _awaited(connect, deadline)


def _hypervisor(bundle: Bundle, seen: Recording, deadline: float) -> int:
    """The process that has become QEMU; notes when the launcher had made it, and when it did."""

    def found() -> int | None:
        for pid in cgroup.processes(bundle.cgroup.paths):
            seen.moments.setdefault("launched", time.time_ns())
            if os.path.basename(os.readlink(f"/proc/{pid}/exe")).startswith("qemu-system"):
                seen.moments["qemu"] = time.time_ns()
                return pid
        return None

    return _awaited(found, deadline)


def _memory(pid: int, machine: Machine, deadline: float) -> ram.Ram:
    below = ram.below_4_gib(machine.type, machine.memory)

    def found() -> ram.Ram:
        fd = ram.memory_file(pid, machine.memory)
        try:
            return ram.Ram(fd, below)
        finally:
            os.close(fd)

    return _awaited(found, deadline)
