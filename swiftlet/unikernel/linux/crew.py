"""The first thread's part in running tasks: a new thread or process for each, its end awaited, its time kept.

A thread that ends is found by the number that the kernel clears (CLONE_CHILD_CLEARTID), a process by wait4(2). Where
the system has no more of them, tasks wait until others end.
"""

from __future__ import annotations

from swiftlet.unikernel.calls import trace
from swiftlet.unikernel.calls.job import ABORTED, JOBS, LATE, READY, Job, jobs, outcome_of
from swiftlet.unikernel.linux import system
from swiftlet.unikernel.linux.fault import CHILD, USER
from swiftlet.unikernel.linux.options import options
from swiftlet.unikernel.linux.worker import ALTERNATE, ARENA, DONE, NEXT, Worker, bell, is_late
from swiftlet.unikernel.metal.words import (
    Struct,
    address,
    array,
    at,
    atomic_add,
    barrier,
    external,
    i64,
    many,
    place,
    system_call,
    u32,
    u64,
    unsigned,
)
from swiftlet.unikernel.runtime.blocks import Arena

KILLED = ABORTED + 2
"""The status of a process that something else ended: 2 is the vector of what cannot be masked."""

MOST = 1024
"""Threads or processes at once; further tasks begin as others end."""

STACK = 256 << 10
"""Bytes of a task's stack."""

RANDOM = 4096
"""Bytes before an arena for random numbers (`runtime.random`)."""

_SMALL = 2 << 20
"""Bytes at an arena's beginning for which no large page is used: most tasks need little."""

_KEPT = 256 << 10
"""Bytes of an arena that the next thread finds as they are; what was touched beyond is given back."""

_VM, _FS, _FILES, _HANDLERS, _THREAD, _UNDO = 0x100, 0x200, 0x400, 0x800, 0x10000, 0x40000
_OWN_POINTER, _TELL_PARENT, _CLEAR_NUMBER = 0x80000, 0x100000, 0x200000
_AS_THREAD = _VM | _FS | _FILES | _HANDLERS | _THREAD | _UNDO | _OWN_POINTER | _TELL_PARENT | _CLEAR_NUMBER
_AS_PROCESS = CHILD | _OWN_POINTER | _TELL_PARENT
"""clone(2); linux/sched.h."""

_WAIT, _NO_HANG, _KILL = 0, 1, 9  # futex(2): FUTEX_WAIT; wait4(2): WNOHANG; signal(7): SIGKILL

_AT_ONCE, _CLOSED_BY_EXEC = 0x800, 0x80000  # eventfd(2): EFD_NONBLOCK, EFD_CLOEXEC


class Crew(Struct):
    """made: workers that have a stack. free: the first without a task, 0 for none. running: those with one.

    region: what all processes have for a stack, each its own copy. started, awaited: how often, of all time.
    """

    made: u64
    free: u64
    running: u64
    region: u64
    started: u64
    awaited: u64


crew = place(Crew)
workers = array(Worker, MOST)
first = place(Worker)
_status = array(u32, 2)


@external
def start_worker(flags: u64, stack: u64, told: u64, cleared: u64, worker: u64) -> i64:
    raise NotImplementedError


def begin() -> i64:
    """Make the first thread known to the handler of signals: it has no task. Returns the bell's file: eventfd(2)."""
    first.me = address(first)
    system.thread_pointer(address(first))
    bell.process = unsigned(system_call(system.PID))
    bell.one = 1
    return system_call(system.EVENT_FILE, 0, _AT_ONCE | _CLOSED_BY_EXEC)


def start_waiting() -> u64:
    """Start the tasks that wait, of the oldest job first. Returns a job of which none can be started, or 0."""
    while True:
        job = oldest_waiting()
        if address(job) == 0:
            bell.hungry = 0
            return 0
        if is_late(job, address(first.time)):
            leave_out(job)
        elif start(job, job.counts[NEXT]):
            job.counts[NEXT] = job.counts[NEXT] + 1
        else:
            bell.hungry = 1
            barrier()  # who ends from here on rings
            if collect_ended() == 0:
                return address(job) if crew.running == 0 else 0


def oldest_waiting() -> Job:
    """The job that asked first of those that have a task that was not started; at 0 where there is none."""
    found = 0
    oldest = 0
    for i in range(JOBS):
        one = jobs[i]
        if one.state == READY and one.counts[NEXT] < one.count and (found == 0 or one.sequence < oldest):
            found = address(one)
            oldest = one.sequence
    return at(Job, found)


def leave_out(job: Job) -> None:
    """Of a job whose time is over, what was not started is not."""
    while job.counts[NEXT] < job.count:
        outcome_of(job, job.counts[NEXT]).status = LATE
        job.counts[NEXT] = job.counts[NEXT] + 1
        count_done(job)


def count_done(job: Job) -> None:
    """A task has ended that does not say so itself: threads count at the same time."""
    atomic_add(job.counts, DONE, 1)


def start(job: Job, ticket: u64) -> bool:
    """Start one task; whether that could be done."""
    place_ = free_worker()
    if place_ == 0:
        return False
    worker = at(Worker, place_)
    worker.ticket = ticket
    worker.resume = 0
    worker.ended = 0
    worker.late = 0
    worker.fault = 0
    worker.job = address(job)
    number = address(worker.tid)
    flags = _AS_PROCESS if options.processes else _AS_THREAD
    if start_worker(flags, worker.stack, number, number, worker.me) < 0:
        release(worker)
        return False
    crew.running += 1
    crew.started += 1
    trace.note(trace.BEGUN, 0, job.id, ticket)
    return True


def free_worker() -> u64:
    """One without a task; 0 where there is none, and none more can be made."""
    found = crew.free
    if found:
        crew.free = at(Worker, found).next
        return found
    if crew.made == MOST or not make(workers[crew.made]):
        return 0
    crew.made += 1
    return address(workers[crew.made - 1])


def make(worker: Worker) -> bool:
    """Give a worker its stacks and its arena: for signals, a page that nobody may touch, for the task, the arena."""
    if crew.region == 0 or options.processes == 0:
        found = system.own_memory(ALTERNATE + system.PAGE + STACK + RANDOM + ARENA)
        if found < 0:
            return False
        crew.region = unsigned(found)
        if system.guard(crew.region + ALTERNATE) < 0:
            system.give_back(crew.region, ALTERNATE + system.PAGE + STACK + RANDOM + ARENA)
            return False
        system.advise(crew.region, ALTERNATE + system.PAGE + STACK + RANDOM + _SMALL, system.SMALL_PAGES)
    worker.me = address(worker)
    worker.alternate = crew.region
    worker.stack = crew.region + ALTERNATE + system.PAGE + STACK
    worker.random = worker.stack
    worker.arena = worker.random + RANDOM
    return True


def release(worker: Worker) -> None:
    """A worker without a task."""
    worker.job = 0
    worker.next = crew.free
    crew.free = worker.me


def retire(worker: Worker) -> None:
    """A worker's task has ended, and with it the thread or the process."""
    used = at(Arena, worker.arena).used
    if options.processes == 0 and used > _KEPT:
        system.advise(worker.arena + _KEPT, used - _KEPT, system.DROPPED)
    crew.running -= 1
    crew.awaited += 1
    trace.note(trace.ENDED, 0, at(Job, worker.job).id, worker.ticket)
    release(worker)


def collect_ended() -> u64:
    """Wait for those that have said that they are at their end, or been reported; how many that were."""
    return reap() if options.processes else join()


def join() -> u64:
    """Wait until the threads that are past their tasks have left their stacks: futex(2)."""
    found = 0
    for i in range(crew.made):
        worker = workers[i]
        if worker.job and worker.ended:
            tid = worker.tid
            while tid:  # read once: whoever waits for it to be no longer 0 waits for ever
                system_call(system.FUTEX, address(worker.tid), _WAIT, tid, 0)
                tid = worker.tid
            retire(worker)
            found += 1
    return found


def reap() -> u64:
    """Take the processes that have ended: wait4(2)."""
    found = 0
    while True:
        number = system_call(system.WAIT, -1, address(_status), _NO_HANG, 0)
        if number <= 0:
            return found
        found += 1
        for i in range(crew.made):
            worker = workers[i]
            if worker.job and worker.tid == unsigned(number):
                ended(worker)
                break


def ended(worker: Worker) -> None:
    """A process has ended: by itself, or it was killed before it had a result."""
    job = at(Job, worker.job)
    outcome = outcome_of(job, worker.ticket)
    if outcome.done == 0:
        outcome.status = LATE if worker.late else KILLED
        outcome.fault = many(u32, address(_status))[0] & 127
    count_done(job)
    retire(worker)


def expire() -> None:
    """End the tasks whose time is over: tgkill(2), kill(2). Asked again as long as they are there."""
    for i in range(crew.made):
        worker = workers[i]
        if worker.job and worker.ended == 0 and is_late(at(Job, worker.job), address(first.time)):
            worker.late = 1
            if options.processes:
                system_call(system.KILL, worker.tid, _KILL)
            elif worker.tid:
                system_call(system.KILL_THREAD, bell.process, worker.tid, USER)
