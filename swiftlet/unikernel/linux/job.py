"""Jobs: a call that was asked for, its tasks' outcomes, and the memory in which both lie. The first thread keeps them.

Each has a mapping of its own: its arguments, an outcome of 64 bytes for each task, and the results behind. It is common
to all processes, so that a task writes there in either mode.
"""

from __future__ import annotations

from swiftlet.unikernel.linux import system
from swiftlet.unikernel.metal.words import Shared, Struct, address, array, at, place, u64, unsigned

JOBS = 64
FREE, FILLING, READY, ANSWERED = 0, 1, 2, 3
"""ANSWERED: its answer was sent, and stays until its place is needed."""

ABORTED = 0x40000000
"""Statuses of tasks that were ended, above all that a compiled function returns: plus a vector (`interrupt`)."""

LATE = ABORTED + 58
"""The status of a task that was not done in its time: as the kernel's timer ends it (`apic.TIMER_VECTOR`)."""

KILLED = ABORTED + 2
"""The status of a process that something else ended: 2 is the vector of what cannot be masked."""

OUTCOME = 64
"""Bytes that an outcome has to itself, as a processor's cache has it."""

NEXT, DONE = 0, 1
"""Places in `Job.counts`: tasks that were started, and that have ended."""

MUCH = 128 << 20
"""Bytes of all mappings above which answers that were sent are forgotten."""

_LEAST = 64 << 10
_KEPT = 1 << 20
"""Bytes of a mapping: it is never smaller; a larger one than `_KEPT` is not kept for the next call."""


class Job(Shared):
    """A call. function: of its tasks. arguments, length: what each gets. outcomes: one for each task.

    room: bytes for each task's result, of which the first lies at `results`. deadline: of the monotonic clock in
    nanoseconds, 0 for none. peer: the first eight bytes of a struct sockaddr_in. local: the address of ours
    at which it was asked for. memory, bytes: its mapping.
    """

    state: u64
    function: u64
    arguments: u64
    length: u64
    count: u64
    outcomes: u64
    results: u64
    room: u64
    failed: u64
    id: u64
    peer: u64
    local: u64
    began: u64
    task: u64
    flags: u64
    deadline: u64
    parts: u64
    missing: u64
    sequence: u64
    memory: u64
    bytes: u64
    counts = array(u64, 2)


class Outcome(Shared):
    """How a task ended. status: of the compiled function, or why it was ended. length: of its result. done: 1."""

    status: u64
    length: u64
    exception: u64
    cycles: u64
    fault: u64
    done: u64
    spare: u64
    spare2: u64


class Held(Struct):
    """bytes: of all jobs' mappings."""

    bytes: u64


jobs = array(Job, JOBS)
held = place(Held)


def outcome_of(job: Job, ticket: u64) -> Outcome:
    """A task's outcome."""
    return at(Outcome, job.outcomes + ticket * OUTCOME)


def is_late(job: Job, room: u64) -> bool:
    """Whether a job's time is over. room: for a struct timespec."""
    return job.deadline != 0 and system.now(room) >= job.deadline


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


def find(id_: u64, peer: u64) -> u64:
    """The job of a request, by who asked and his number; 0 for none."""
    for i in range(JOBS):
        one = jobs[i]
        if one.state != FREE and one.id == id_ and one.peer == peer:
            return address(one)
    return 0
