"""Guests as the wire shows them: docs/wire.md's G, `Inspect`, `Stats`. Reads; changes nothing."""

from __future__ import annotations

from typing import Any

import msgspec

from swiftlet.guest import meter
from swiftlet.guest.machine import OVERHEAD, memory_of
from swiftlet.node.prepare import read_bundle
from swiftlet.node.record import Guest


def line_of(guest: Guest) -> dict[str, Any]:
    """The wire's G."""
    exit_ = guest.exit
    running = guest.journal.last("Running")
    return {
        "id": guest.id,
        "name": guest.name,
        "kind": guest.workload.kind,
        "state": guest.state,
        "templates": list(guest.workload.templates),
        "command": list(guest.argv),
        "created_ns": guest.journal.begun_ns,
        "started_ns": running.time_ns if running else None,
        "ended_ns": exit_.get("ended_ns") if exit_ and not guest.is_running else None,
        "pid": guest.pid or None,
        "exit": exit_ if not guest.is_running else None,
        "address": guest.attached.address if guest.attached else None,
        "ports": guest.attached.shown_ports if guest.attached else [],
    }


def everything_of(guest: Guest) -> dict[str, Any]:
    """What `Inspect` answers: G, and all that there is about the guest."""
    bundle = read_bundle(guest.folder)
    usage = measure(guest) if guest.is_running else (guest.exit or {}).get("usage", {})
    return {
        **line_of(guest),
        "workload": msgspec.to_builtins(guest.workload),
        "bundle": msgspec.to_builtins(bundle) if bundle else None,
        "journal": [change.document for change in guest.journal.changes],
        "network": guest.attached.document if guest.attached else None,
        "usage": usage,
        "folder": guest.folder,
    }


def measure(guest: Guest) -> dict[str, int]:
    """What a running guest uses now; {} when it has just ended."""
    try:
        return meter.measure(guest.groups) if guest.groups else {}
    except OSError:
        return {}


def stats_of(guest: Guest) -> dict[str, Any]:
    """A line of `Stats`. Reads every process' memory map, so not on the event loop."""
    found = measure(guest)
    names = ("cpu_ns", "memory_bytes", "private_bytes", "shared_bytes", "pids")
    limit = guest.workload.resources.memory
    if limit and guest.workload.kind == "vm":
        limit = memory_of(guest.workload) + OVERHEAD  # what is measured is the machine around it as well
    return {"id": guest.id, "name": guest.name, "memory_limit": limit, **{name: found.get(name, 0) for name in names}}
