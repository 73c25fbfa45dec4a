"""Why a virtual machine does not come to its workload: what its console says, and where its kernel is.

A kernel that hangs says nothing (its console is quiet), but QEMU knows what its processor executes, and the kernel's
symbols are kept beside it.
"""

from __future__ import annotations

import bisect
import re

from swiftlet.guest import qmp
from swiftlet.model.error import LaunchError, SwiftletError
from swiftlet.node.record import Guest

_LINES = 8
_CONSOLE_BYTES = 4096


async def not_ready(guest: Guest, symbols: str, seconds: float) -> LaunchError:
    """The error of a machine that has not begun its workload in so many seconds. symbols: path of a System.map."""
    place = await _place(guest, symbols)
    said = console_tail(guest.folder)
    text = f"guest {guest.name} has not begun its workload after {seconds:.0f} s; {place}"
    text += f"; the last of its console: {' / '.join(said)}" if said else "; its console is empty"
    return LaunchError(text, "another kernel (--kernel), more memory (-m), or see docs/vms.md")


def console_tail(folder: str) -> list[str]:
    """The last lines of a machine's console that say something."""
    try:
        with open(f"{folder}/console", "rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _CONSOLE_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [line.strip() for line in text.splitlines() if line.strip()][-_LINES:]


async def _place(guest: Guest, symbols: str) -> str:
    try:
        async with guest.monitor, qmp.session(guest.folder) as monitor:
            told = str(await monitor.execute("human-monitor-command", command_line="info registers"))
    except (SwiftletError, OSError):
        return "QEMU itself does not answer"
    found = re.search(r"[RE]IP=([0-9a-f]+)", told)
    if not found:
        return "where its kernel is cannot be told"
    address = int(found[1], 16)
    name = symbol_at(address, symbols)
    return f"its kernel is in {name}" if name else f"its processor is at {address:#x}, outside its kernel"


def symbol_at(address: int, path: str) -> str:
    """The name of the function at an address, by a System.map; "" when it lies in none."""
    addresses: list[int] = []
    names: list[str] = []
    try:
        with open(path) as file:
            for line in file:
                value, kind, name = line.split()
                if kind in "tTwW":
                    addresses.append(int(value, 16))
                    names.append(name)
    except (OSError, ValueError):
        return ""
    place = bisect.bisect_right(addresses, address) - 1
    return names[place] if 0 <= place < len(names) - 1 else ""
