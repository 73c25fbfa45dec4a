"""What a task runs in: a thread or a process with its stack, a page below it that nobody may touch, and an arena.

FS begins at a thread's Worker, as GS at a processor's structure in the kernel. In a process it is the child's own copy.
"""

from __future__ import annotations

from swiftlet.unikernel.calls.job import LATE, Job, outcome_of
from swiftlet.unikernel.linux import system
from swiftlet.unikernel.linux.options import options
from swiftlet.unikernel.linux.system import Time
from swiftlet.unikernel.metal.words import (
    Shared,
    Struct,
    address,
    at,
    atomic_add,
    counter,
    export,
    external,
    fs,
    place,
    signed,
    system_call,
    u32,
    u64,
)

NEXT, DONE = 0, 1
"""Places in `Job.counts`: tasks that were started, and that have ended."""

ALTERNATE = 16 << 10
"""Bytes of the stack for signals: their frame has up to 11 KiB where a processor has AMX."""

ARENA = 64 << 20
"""Bytes of a task's arena: of addresses, for memory is what the task touches."""

_DIES_WITH_PARENT, _KILLED = 1, 9  # prctl(2): PR_SET_PDEATHSIG; signal(7): SIGKILL


class Worker(Shared):
    """A thread or a process of a task. `start.S` knows the places of the first two fields.

    stack: its top. alternate: where the stack for signals begins. ticket: which of the job's tasks. ended: the thread
    is past its task. late: it is told to end it. tid: 0 when the kernel has ended it. next: that is free as well.
    """

    me: u64
    resume: u64
    stack: u64
    alternate: u64
    random: u64
    arena: u64
    job: u64
    ticket: u64
    ended: u64
    late: u64
    fault: u64
    next: u64
    tid: u32
    reserved: u32
    time = place(Time)


class Bell(Shared):
    """How the first thread is woken. file: of eventfd(2), one: what is written there, 1. process: its number.

    hungry: tasks wait for a worker, so everybody who ends rings.
    """

    file: u64
    hungry: u64
    process: u64
    one: u64


class AlternateStack(Struct):
    """stack_t."""

    start: u64
    flags: u64
    size: u64


bell = place(Bell)


@external
def arena_begin(place: u64, size: u64) -> None: ...


@external
def run_task(
    function: u64, result: u64, exception: u64, arguments: u64, length: u64, output: u64, capacity: u64
) -> u64:
    raise NotImplementedError


def is_late(job: Job, room: u64) -> bool:
    """Whether a job's time is over. room: for a struct timespec."""
    return job.deadline != 0 and system.now(room) >= job.deadline


def mine() -> Worker:
    """This thread's own."""
    return at(Worker, fs(0))


@export
def arena() -> u64:
    """The memory of the task that this thread runs (`runtime.arena`)."""
    return mine().arena


@export
def random_state() -> u64:
    """The random numbers of this thread (`runtime.random`)."""
    return mine().random


@export
def worker_main(place_: u64) -> None:
    """A worker's whole life."""
    me = at(Worker, place_)
    if options.processes:
        follow_parent()
    take_signals_aside(me)
    work(me)
    if options.processes == 0:
        tell(me)
    system_call(system.EXIT, 0)


def follow_parent() -> None:
    """Let this process end with its parent, which may be gone already: prctl(2)."""
    system_call(system.PROCESS_CONTROL, _DIES_WITH_PARENT, _KILLED)
    if system_call(system.PARENT) != signed(bell.process):
        system.exit_all(0)


def take_signals_aside(me: Worker) -> None:
    """Handle signals on a stack of their own, for what they tell of may be the end of the other one: sigaltstack(2)."""
    told = at(AlternateStack, me.alternate)
    told.start = me.alternate
    told.flags = 0
    told.size = ALTERNATE
    system_call(system.ALTERNATE_STACK, address(told), 0)


def work(me: Worker) -> None:
    """Run the task, and say how it ended."""
    job = at(Job, me.job)
    outcome = outcome_of(job, me.ticket)
    begin = counter()
    status = LATE
    if not is_late(job, address(me.time)):
        output = job.results + me.ticket * job.room
        result = address(outcome.length)
        arena_begin(me.arena, ARENA)
        status = run_task(job.function, result, address(outcome.exception), job.arguments, job.length, output, job.room)
    outcome.cycles = counter() - begin
    outcome.fault = me.fault
    outcome.status = status
    outcome.done = 1


def tell(me: Worker) -> None:
    """Count a thread's task as done, and wake the first thread if it waits for that. The job may be gone behind it."""
    job = at(Job, me.job)
    count = job.count
    me.ended = 1
    if atomic_add(job.counts, DONE, 1) + 1 == count or bell.hungry:
        system.write(bell.file, address(bell.one), 8)
