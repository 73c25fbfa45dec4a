"""Jobs: a call that was asked for, and its tasks' outcomes. One processor or thread alone makes and retires them."""

from __future__ import annotations

from swiftlet.unikernel.metal.words import Shared, Struct, address, array, at, u64

JOBS = 32
FREE, FILLING, READY, FINISHED, ANSWERED = 0, 1, 2, 3, 4
"""ANSWERED: its answer was sent, and stays until its place is needed."""

ABORTED = 0x40000000
"""Statuses of tasks that were ended, above all that a compiled function returns: plus the vector (`interrupt`)."""

LATE = ABORTED + 58
"""The status of a task that was not begun before its time was over: as the timer ends one (`apic.TIMER_VECTOR`)."""

OUTCOME = 64
"""Bytes that an outcome has to itself, as a processor's cache has it."""


class Job(Shared):
    """A call. function: of its tasks. arguments, length: what each gets. outcomes: one for each ticket.

    room: bytes for each task's result, of which the first lies at `results`. memory, bytes: in which all of that lies.
    deadline: a moment (`target`), 0 for none. peer: who asked. path: how answers get there. missing: the part that is
    wanted next. counts: the target's own, all zero when the job is ready.
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
    path: u64
    began: u64
    ended: u64
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
    apic: u64
    done: u64
    spare: u64


class Task(Struct):
    """An entry of the table that the builder makes (`build.tables`). room: bytes of a result, 0 for any number.

    number: whether results are integers.
    """

    function: u64
    room: u64
    number: u64
    reserved: u64


jobs = array(Job, JOBS)


def outcome_of(job: Job, ticket: u64) -> Outcome:
    """A task's outcome."""
    return at(Outcome, job.outcomes + ticket * OUTCOME)


def find(id_: u64, peer: u64) -> u64:
    """The job of a request, by who asked and his number; 0 for none."""
    for i in range(JOBS):
        one = jobs[i]
        if one.state != FREE and one.id == id_ and one.peer == peer:
            return address(one)
    return 0
