"""The memory of jobs: each has a mapping of its own, common to all processes: a task writes there in either mode.

In it lie its arguments, an outcome of 64 bytes for each task, and the results behind.
"""

from __future__ import annotations

from swiftlet.unikernel.calls.job import ANSWERED, FREE, JOBS, Job, jobs
from swiftlet.unikernel.linux import system
from swiftlet.unikernel.metal.words import Struct, address, at, place, u64, unsigned

MUCH = 128 << 20
"""Bytes of all mappings above which answers that were sent are forgotten."""

_LEAST = 64 << 10
_KEPT = 1 << 20
"""Bytes of a mapping: it is never smaller; a larger one than `_KEPT` is not kept for the next call."""


class Held(Struct):
    """bytes: of all jobs' mappings."""

    bytes: u64


held = place(Held)


def make_room(job: Job, size: u64) -> bool:
    """Give a job memory; whether there is any. What it had is used again where it fits."""
    if job.memory and size <= job.bytes and job.bytes <= _KEPT:
        return True
    let_go(job)
    drop_answers()
    wanted = (size if size > _LEAST else _LEAST) + system.PAGE - 1 & ~(system.PAGE - 1)
    found = system.common_memory(wanted)
    if found < 0:
        return False
    job.memory = unsigned(found)
    job.bytes = wanted
    held.bytes += wanted
    return True


def let_go(job: Job) -> None:
    """Give a job's memory back."""
    if job.memory:
        system.give_back(job.memory, job.bytes)
        held.bytes -= job.bytes
        job.memory = 0


def drop_answers() -> None:
    """Forget answers, the oldest first, as long as all jobs have more memory than they should."""
    while held.bytes > MUCH:
        oldest = 0
        for i in range(JOBS):
            one = jobs[i]
            if one.state == ANSWERED and one.memory and (oldest == 0 or one.sequence < at(Job, oldest).sequence):
                oldest = address(one)
        if oldest == 0:
            return
        at(Job, oldest).state = FREE
        let_go(at(Job, oldest))
