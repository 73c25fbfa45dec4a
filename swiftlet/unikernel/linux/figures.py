"""What is told of the service: in the places that the kernel's figures have (`service.Figures`), zeros for what is not.

All threads and processes are told of together, as one processor.
"""

from __future__ import annotations

from swiftlet.unikernel.linux import crew, system
from swiftlet.unikernel.linux.answer import desk
from swiftlet.unikernel.metal.words import Struct, counter, place, size_of, u64


class State(Struct):
    """started: the time stamp counter at the beginning. waits: how often the first thread has been woken."""

    sequence: u64
    calls: u64
    repeated: u64
    refused: u64
    busy: u64
    malformed: u64
    received: u64
    started: u64
    waits: u64


class Figures(Struct):
    """service.Figures and one service.Core."""

    processors: u64
    uptime: u64
    calls: u64
    repeated: u64
    refused: u64
    busy: u64
    malformed: u64
    received: u64
    sent: u64
    dropped: u64
    net_malformed: u64
    net_checksums: u64
    net_foreign: u64
    net_unknown: u64
    memory: u64
    memory_left: u64
    apic: u64
    tasks: u64
    cycles: u64
    errors: u64
    wakeups: u64
    interrupts: u64
    running: u64
    parked: u64


state = place(State)
told = place(Figures)


def size() -> u64:
    """Bytes of all figures."""
    return size_of(Figures)


def gather() -> None:
    """Bring the figures up to date."""
    told.processors = 1
    told.uptime = counter() - state.started
    told.calls = state.calls
    told.repeated = state.repeated
    told.refused = state.refused
    told.busy = state.busy
    told.malformed = state.malformed
    told.received = state.received
    told.sent = desk.sent
    told.memory = system.memory_of_host()
    told.memory_left = system.information[5]
    told.tasks = desk.tasks
    told.cycles = desk.cycles
    told.errors = desk.errors
    told.wakeups = state.waits
    told.running = 1 if crew.crew.running else 0
    told.parked = 1 - told.running
