"""What is told of a service: these figures, and behind them one Core for each processor."""

from __future__ import annotations

from swiftlet.unikernel.metal.words import Struct, place, u64


class State(Struct):
    """What is counted here. started: the time stamp counter at the beginning. sequence: of the youngest job."""

    sequence: u64
    calls: u64
    repeated: u64
    refused: u64
    busy: u64
    malformed: u64
    started: u64


class Figures(Struct):
    """What is told of the machine, before its processors."""

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


class Core(Struct):
    """What is told of a processor."""

    apic: u64
    tasks: u64
    cycles: u64
    errors: u64
    wakeups: u64
    interrupts: u64
    running: u64
    parked: u64


state = place(State)


def note(told: Figures, now: u64) -> None:
    """Write down what is counted here. now: the time stamp counter."""
    told.uptime = now - state.started
    told.calls = state.calls
    told.repeated = state.repeated
    told.refused = state.refused
    told.busy = state.busy
    told.malformed = state.malformed
