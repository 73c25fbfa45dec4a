"""The first processor's work: datagrams, finished jobs, tasks; and what calls ask of a target (`calls.target`)."""

from __future__ import annotations

from swiftlet.unikernel.calls import answer, figures, request, trace
from swiftlet.unikernel.calls.answer import received
from swiftlet.unikernel.calls.figures import Core, Figures
from swiftlet.unikernel.calls.job import ANSWERED, FINISHED, JOBS, Job, jobs
from swiftlet.unikernel.kernel import clock, errand, job, lease, memory, net, orders, power, processor, virtio
from swiftlet.unikernel.kernel.processor import Processor, everyone
from swiftlet.unikernel.metal.words import (
    Shared,
    Struct,
    address,
    allow_interrupts,
    array,
    at,
    barrier,
    counter,
    export,
    mask_interrupts,
    place,
    size_of,
    text,
    u64,
    wait_for_interrupt,
)

PORT = 7000

FRAMES = 32
"""That are looked at before finished jobs are answered and a task is run: a flood of frames starves neither."""

LEAST_DESKS = 256 << 10
"""Bytes that all jobs' desks have at least."""


MOST_OF_A_DESK = 64 << 20
"""So that no answer has more parts than can be counted (`message.Message`)."""


class State(Shared):
    """desk: bytes that each job has for its arguments, outcomes and results. computes: whether this one runs tasks."""

    desk: u64
    computes: u64


class Told(Struct):
    """The answer to a request for statistics."""

    figures = place(Figures)
    cores = array(Core, processor.MOST)


state = place(State)
told = place(Told)


def begin(computes: u64) -> None:
    """Give every job its desk, of the memory that is left."""
    each = (memory.left() // JOBS) & ~4095
    state.desk = each if each < MOST_OF_A_DESK else MOST_OF_A_DESK
    state.computes = computes
    figures.state.started = counter()
    for i in range(JOBS):
        jobs[i].memory = memory.heap.next
        memory.heap.next += state.desk


def serve(me: Processor) -> None:
    """For ever."""
    while True:
        for _ in range(FRAMES):
            if net.receive():
                if net.datagram.target_port == PORT:
                    take_datagram()
                else:
                    lease.hear()
        lease.tend(False)
        orders.poll()
        if orders.orders.killed:
            power.off(0)
        if state.computes == 0:
            job.leave_out(me)
        finish_jobs()
        if state.computes == 0 or not job.is_left_over() or not job.step(me):
            sleep(me)


def take_datagram() -> None:
    """Do what a datagram asks for."""
    received.data = net.datagram.data
    received.length = net.datagram.length
    received.peer = net.datagram.source << 16 | net.datagram.source_port
    received.path = net.datagram.hardware
    request.handle()


def sleep(me: Processor) -> None:
    """Until a frame, a finished job or a task that is left over."""
    mask_interrupts()
    me.parked = 1
    barrier()
    if virtio.is_waiting() or orders.is_waiting() or is_finished() or (state.computes and job.is_left_over()):
        allow_interrupts()
    else:
        wait_for_interrupt()
        me.wakeups += 1
    me.parked = 0


def is_finished() -> bool:
    """Whether a job is to be answered."""
    for i in range(JOBS):
        if jobs[i].state == FINISHED:
            return True
    return False


def finish_jobs() -> None:
    """Answer the jobs that are finished."""
    for i in range(JOBS):
        one = jobs[i]
        if one.state == FINISHED:
            answer.collect(one)
            one.state = ANSWERED
            if one.peer == errand.PEER:
                errand.tell(one)
            answer.send_all(one)
            trace.note(trace.ANSWERED, 0, one.id, one.count)


@export
def moment() -> u64:
    """The time stamp counter."""
    return counter()


@export
def millisecond() -> u64:
    """Of the time stamp counter."""
    return clock.per_millisecond()


@export
def most_of_a_call() -> u64:
    """A desk."""
    return state.desk


@export
def most_of_a_result() -> u64:
    """A desk."""
    return state.desk


@export
def too_large() -> u64:
    """Of a call that a desk has no room for."""
    return text("too large for this machine: give it more memory")


@export
def take_room(place_: u64, size: u64) -> u64:
    """Each job has its desk for good."""
    return 1


@export
def begin_tasks(place_: u64) -> None:
    """Let every processor see a job."""
    one = at(Job, place_)
    job.publish(one)
    if one.deadline:
        clock.plan()


@export
def end_tasks(place_: u64) -> None:
    """Interrupt whoever runs a job's tasks, and once more whoever was just about to begin one."""
    mask_interrupts()  # as in `job.publish`
    clock.expire(0)
    allow_interrupts()
    clock.plan()


@export
def reply_room() -> u64:
    """In a frame that is sent next."""
    return net.reply_room()


@export
def send_reply(reply: u64, length: u64, peer: u64, path: u64) -> None:
    """As a datagram. path: an Ethernet address."""
    net.send(reply, length, path, peer >> 16, peer & 0xFFFF, PORT)


@export
def may_shut_down() -> u64:
    """Anybody may, unless there is a launcher on the host, which ends the machine then, and nobody else."""
    return 1 - orders.orders.is_there


@export
def shut_down() -> None:
    """Turn the machine off when the reply has been sent."""
    virtio.flush()
    power.off(0)


@export
def figures_size() -> u64:
    """Of those processors that there are."""
    return size_of(Figures) + everyone.count * size_of(Core)


@export
def figures_place() -> u64:
    """Put together what is told of the machine."""
    all_ = told.figures
    figures.note(all_, counter())
    all_.processors = everyone.count
    all_.received = virtio.card.received
    all_.sent = virtio.card.sent
    all_.dropped = virtio.card.dropped
    all_.net_malformed = net.network.malformed
    all_.net_checksums = net.network.checksums
    all_.net_foreign = net.network.foreign
    all_.net_unknown = net.network.unknown
    all_.memory = memory.heap.bytes
    all_.memory_left = memory.left()
    for i in range(everyone.count):
        one = processor.of(i)
        core = told.cores[i]
        core.apic = one.apic
        core.tasks = one.tasks
        core.cycles = one.cycles
        core.errors = one.errors
        core.wakeups = one.wakeups
        core.interrupts = one.interrupts
        core.running = 1 if one.job else 0
        core.parked = one.parked
    return address(told)
