"""What a unikernel tells of itself (`calls.figures.Figures`), as plain values."""

from __future__ import annotations

import struct
from typing import Any

from swiftlet.model.error import WireError
from swiftlet.unikernel import wire
from swiftlet.unikernel.client import Client

_FIGURES = (
    "count", "cycles", "calls", "repeated", "refused", "busy", "malformed", "received", "sent", "dropped",
    "net_malformed", "net_checksums", "net_foreign", "net_unknown", "memory", "memory_left",
)  # fmt: skip
_CORE = ("apic", "tasks", "cycles", "errors", "wakeups", "interrupts", "running", "parked")


def figures_of(client: Client) -> dict[str, Any]:
    """Counts of the machine, and `processors`, one dict each. Raises WireError."""
    data = client.read(wire.STATISTICS)
    words = struct.unpack(f"<{len(data) // 8}Q", data[: len(data) // 8 * 8])
    count = words[0] if words else 0
    if len(words) != len(_FIGURES) + count * len(_CORE):
        raise WireError(f"{client.name} tells figures that cannot be read")
    found: dict[str, Any] = dict(zip(_FIGURES, words, strict=False))
    del found["count"]
    found["processors"] = []
    for number in range(count):
        place = len(_FIGURES) + number * len(_CORE)
        core: dict[str, Any] = dict(zip(_CORE, words[place : place + len(_CORE)], strict=True))
        core["state"] = "running" if core.pop("running") else "parked" if core["parked"] else "serving"
        del core["parked"]
        found["processors"].append(core)
    return found
