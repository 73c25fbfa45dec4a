"""Jobs and their tasks: each processor takes the next ticket by one locked addition, and nobody ever waits for a lock.

The first processor alone makes and retires jobs. What others look at is one word, of how many tickets are left: whoever
takes one off and finds that there was one has a ticket of the job as it is now, however long he was held up before, and
the job stays until he has run it. Its last finished task makes it FINISHED, and whoever ran that tells the first
processor.
"""

from __future__ import annotations

from swiftlet.unikernel.calls import trace
from swiftlet.unikernel.calls.job import FINISHED, JOBS, LATE, READY, Job, jobs, outcome_of
from swiftlet.unikernel.kernel import apic, placement, processor
from swiftlet.unikernel.kernel.processor import Processor, everyone
from swiftlet.unikernel.metal.words import (
    address,
    allow_interrupts,
    at,
    atomic_add,
    barrier,
    counter,
    export,
    external,
    mask_interrupts,
    monitor,
    mwait,
    signed,
    u64,
    wait_for_interrupt,
)

LEFT, DONE = 0, 1
"""Places in `Job.counts`: tickets that nobody has taken, below zero where somebody came too late; tasks that ended."""

ONE_LESS = (1 << 64) - 1


@external
def arena_begin(place: u64, size: u64) -> None: ...


@export
def arena() -> u64:
    """The memory of the task that this processor runs (`runtime.arena`)."""
    return processor.mine().arena


@export
def random_state() -> u64:
    """The random numbers of this processor (`runtime.random`)."""
    return processor.mine().random


@external
def run_task(
    function: u64, result: u64, exception: u64, arguments: u64, length: u64, output: u64, capacity: u64
) -> u64:
    raise NotImplementedError


def is_waiting() -> bool:
    """Whether there is a ticket that nobody has taken."""
    for i in range(JOBS):
        if signed(jobs[i].counts[LEFT]) > 0:
            return True
    return False


def is_left_over() -> bool:
    """Whether there are more tickets than other processors without a task: each of those takes one.

    The first processor runs what is left over only, for while it does it hears nobody.
    """
    left = 0
    for i in range(JOBS):
        if signed(jobs[i].counts[LEFT]) > 0:
            left += jobs[i].counts[LEFT]
    idle = 0
    if left:
        for i in range(1, everyone.count):
            if processor.of(i).job == 0:
                idle += 1
    return left > idle


def work(me: Processor) -> None:
    """Run tasks until no ticket is left."""
    while step(me):
        pass


def step(me: Processor) -> bool:
    """Run one task of the oldest job that has one; whether there was one."""
    oldest = 0
    found = 0
    for i in range(JOBS):
        job = jobs[i]
        if signed(job.counts[LEFT]) > 0 and (found == 0 or job.sequence < oldest):
            oldest = job.sequence
            found = address(job)
    if found == 0:
        return False
    job = at(Job, found)
    left = atomic_add(job.counts, LEFT, ONE_LESS)
    if signed(left) > 0:
        run(me, job, job.count - left)
    return True


def leave_out(me: Processor) -> None:
    """Of jobs whose time is over, take what nobody else came to: none of it is run."""
    for i in range(JOBS):
        job = jobs[i]
        while job.deadline and job.deadline <= counter() and signed(job.counts[LEFT]) > 0:
            left = atomic_add(job.counts, LEFT, ONE_LESS)
            if signed(left) > 0:
                run(me, job, job.count - left)


def run(me: Processor, job: Job, ticket: u64) -> None:
    """Run a task."""
    count = job.count  # when this task is counted as done the job may be another one
    outcome = outcome_of(job, ticket)
    arena_begin(me.arena, me.arena_size)
    me.job = address(job)
    me.task = ticket
    trace.note(trace.BEGUN, me.apic, job.id, ticket)
    begin = counter()
    result = address(outcome.length)
    output = job.results + ticket * job.room
    status = LATE
    if job.deadline == 0 or begin < job.deadline:
        exception = address(outcome.exception)
        status = run_task(job.function, result, exception, job.arguments, job.length, output, job.room)
    spent = counter() - begin
    me.job = 0
    me.tasks += 1
    me.cycles += spent
    outcome.status = status
    outcome.apic = me.apic
    outcome.cycles = spent
    if status:
        me.errors += 1
        outcome.fault = me.fault_code
    trace.note(trace.ENDED, me.apic, job.id, ticket)
    if atomic_add(job.counts, DONE, 1) + 1 == count:
        job.ended = counter()
        job.state = FINISHED
        if me.index:
            apic.send(processor.of(0).apic, apic.WAKE_VECTOR)


def publish(job: Job) -> None:
    """Let everybody see a job, and wake as many as it has tasks for."""
    wanted = job.count
    job.state = READY
    job.counts[LEFT] = wanted
    barrier()
    mask_interrupts()  # the timer's handler gives the interrupt controller commands too, and one takes two writes
    for i in range(placement.order.count):
        other = processor.of(placement.order.list[i])
        if wanted and other.parked:
            other.parked = 0
            if other.monitors == 0:
                apic.send(other.apic, apic.WAKE_VECTOR)
            wanted -= 1
    allow_interrupts()


def park(me: Processor) -> None:
    """Sleep until somebody wakes this processor, by an interrupt or by a write to `parked`: no tick does."""
    mask_interrupts()
    me.parked = 1
    if me.monitors:
        monitor(address(me.parked))
    barrier()
    if is_waiting() or me.parked == 0:
        me.parked = 0
        allow_interrupts()
        return
    if me.monitors:
        mwait()
    else:
        wait_for_interrupt()
    if me.parked == 0:
        trace.note(trace.WOKEN, me.apic, 0, 0)
    me.parked = 0
    me.wakeups += 1
