"""Why a virtual machine does not come to its workload: what its console says, and where its kernel is.

A kernel that hangs says nothing (its console is quiet), but QEMU knows what its processors execute and what their
stacks hold; one that faults prints both. The kernel's symbols are kept beside it.
"""

from __future__ import annotations

import asyncio
import os
import re
from typing import NamedTuple

from swiftlet.guest import qmp
from swiftlet.guest.qmp import Monitor
from swiftlet.model.bundle import Machine
from swiftlet.model.error import LaunchError, SwiftletError
from swiftlet.node.record import Guest
from swiftlet.node.symbols import Symbols

_LINES = 8
_CONSOLE_BYTES = 65536

_STACK_WORDS = 1024
"""Half of a kernel's stack (16 KiB): what an initcall calls is not deep."""

_LOOKS = 20
_BETWEEN_LOOKS = 0.02

_FOR_THE_HOST = "end other guests, or see what takes the host's memory: free -m"

_OTHER = "another kernel (--kernel), more memory (-m), or see docs/vms.md"

_NO_MEMORY = re.compile(r"Out of memory|System is deadlocked on memory|Cannot allocate memory|page allocation failure")

_HOSTS_MEMORY = re.compile(r"^qemu-system-\S+: .*Cannot allocate memory", re.MULTILINE)
"""What QEMU itself says when the host has not the memory that the machine is to have."""

_FRAME = re.compile(r"(?:RIP: 0010:|\]\s+(?:\? )?)(?:0x([0-9a-f]{16})\b|([A-Za-z_]\w*)(?:\.\w+)*\+0x)")
"""What a kernel prints of its stack when it faults: addresses, or names where it has them (KALLSYMS)."""

_BESIDES = 40 << 20
"""Memory besides its image's size: a kernel was seen to need 32 MiB until its workload runs, and that is to run."""

_STEP = 16 << 20

_UNPACKED = 4
"""By so much a compressed kernel grows: Debian's of 13.5 MiB was seen to start with 96 MiB and not with 64."""


class KernelFiles(NamedTuple):
    """Where a machine's kernel lies; console: where what it has written is kept when it does not start."""

    image: str
    symbols: str
    console: str


async def not_ready(guest: Guest, machine: Machine, kernel: KernelFiles, seconds: float) -> LaunchError:
    """The error of a machine that has not begun its workload in so many seconds."""
    place = await _place(guest, Symbols(kernel.symbols))
    whole = _console(guest.folder, _CONSOLE_BYTES)
    said = _last_lines(whole)
    text = f"guest {guest.name} has not begun its workload after {seconds:.0f} s; {place}"
    text += f"; the last of its console: {' / '.join(said)}" if said else "; its console is empty"
    if machine.memory < least_memory(kernel.image):
        return LaunchError(f"{_too_small(guest, machine)}: {text}", _advice(machine, kernel))
    return LaunchError(text, f"{_OTHER}{_kept(whole, kernel)}")


def ended_early(error: SwiftletError, guest: Guest, machine: Machine, kernel: KernelFiles) -> SwiftletError:
    """What is known besides of a machine that has ended before its workload began."""
    whole = _console(guest.folder, _CONSOLE_BYTES)
    if told := _HOSTS_MEMORY.search(whole):
        size = f"{machine.memory >> 20} MiB"
        return LaunchError(f"this host has no {size} of memory for guest {guest.name}: {told[0]}", _FOR_THE_HOST)
    if _NO_MEMORY.search(whole) or (not whole.strip() and machine.memory < least_memory(kernel.image)):
        return LaunchError(f"{_too_small(guest, machine)}: {error}", _advice(machine, kernel))
    symbols = Symbols(kernel.symbols)
    initcall = symbols.initcall(name or symbols.at(int(address, 16)) for address, name in _FRAME.findall(whole))
    if not initcall:
        return error
    text = f"the kernel of guest {guest.name} died in the initcall {initcall}: {error}"
    return LaunchError(text, f"{_OTHER}{_kept(whole, kernel)}")


def _kept(whole: str, kernel: KernelFiles) -> str:
    """Keep what a machine has written, of which errors show the end only; a hint that says where. Never raises."""
    if len(whole.splitlines()) <= _LINES:
        return ""
    try:
        with open(f"{kernel.console}.new", "w") as file:
            file.write(whole)
        os.rename(f"{kernel.console}.new", kernel.console)
    except OSError:
        return ""
    return f"; its console: {kernel.console}"


def least_memory(image: str) -> int:
    """Bytes of memory with which a kernel comes to a small workload, by the size of its image; 0 when not known."""
    try:
        size = os.stat(image).st_size
    except OSError:
        return 0
    needed = size * (_UNPACKED if image.endswith("/bzImage") else 1) + _BESIDES
    return -(-needed // _STEP) * _STEP


def _too_small(guest: Guest, machine: Machine) -> str:
    return f"{machine.memory >> 20} MiB of memory are too little for guest {guest.name} and its kernel"


def _advice(machine: Machine, kernel: KernelFiles) -> str:
    if machine.snapshot:
        return f"a clone has the memory of its snapshot {machine.snapshot}: take one of a guest that was given more"
    enough = least_memory(kernel.image)
    if enough <= machine.memory:  # what it is to run takes more than what was seen to
        enough = 2 * machine.memory
    return f"give it more: -m {enough >> 20}M"


def _last_lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()][-_LINES:]


def _console(folder: str, length: int) -> str:
    try:
        with open(f"{folder}/console", "rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - length))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


async def _place(guest: Guest, symbols: Symbols) -> str:
    """Where a kernel hangs. It is looked at more than once, for a moment may be one of an interrupt, or of idling."""
    stacks: list[list[int]] = []
    try:
        async with guest.monitor, qmp.session(guest.folder) as monitor:
            for _ in range(_LOOKS):
                stacks = [await _stack(monitor, processor) for processor in range(await _processors(monitor))]
                for stack in stacks:
                    if initcall := symbols.initcall(map(symbols.at, stack)):
                        return f"its kernel is in {symbols.at(stack[0])}, in the initcall {initcall}"
                await asyncio.sleep(_BETWEEN_LOOKS)
    except (SwiftletError, OSError):
        return "QEMU itself does not answer"
    if not stacks or not stacks[0]:
        return "where its kernel is cannot be told"
    name = symbols.at(stacks[0][0])
    return f"its kernel is in {name}" if name else f"its processor is at {stacks[0][0]:#x}, outside its kernel"


async def _processors(monitor: Monitor) -> int:
    return len(await monitor.execute("query-cpus-fast"))


async def _stack(monitor: Monitor, processor: int) -> list[int]:
    """Where a processor is, and what its stack holds, innermost first."""

    async def ask(command: str) -> str:
        asked = {"command_line": command, "cpu_index": processor}
        return str(await monitor.execute("human-monitor-command", **asked))

    registers = await ask("info registers")
    place, top = (re.search(rf"[RE]{name}=([0-9a-f]+)", registers) for name in ("IP", "SP"))
    if not place or not top:
        return []
    told = await ask(f"x /{_STACK_WORDS}gx 0x{top[1]}")
    return [int(place[1], 16), *(int(word, 16) for word in re.findall(r" 0x([0-9a-f]{16})", told))]
