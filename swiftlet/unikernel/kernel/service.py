"""Answers requests: a call becomes a job, whose outcome is kept so that a repeated request is not computed twice.

The first processor alone runs this. The oldest job whose answer was sent gives way when a new one comes.
"""

from __future__ import annotations

from swiftlet.unikernel.kernel import clock, job, lease, memory, message, net, orders, power, processor, virtio
from swiftlet.unikernel.kernel.interrupt import ABORTED
from swiftlet.unikernel.kernel.job import DONE, FILLING, FINISHED, FREE, JOBS, LEFT, OUTCOME, READY, Job, Outcome
from swiftlet.unikernel.kernel.message import Message
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
    many,
    mask_interrupts,
    place,
    size_of,
    symbol,
    text,
    u8,
    u32,
    u64,
    wait_for_interrupt,
)

ANSWERED = 4
"""A job's state: its answer was sent, and stays until its place is needed."""

PORT = 7000

FRAMES = 32
"""That are looked at before finished jobs are answered and a task is run: a flood of frames starves neither."""


class Task(Struct):
    """An entry of the table that the builder makes. room: bytes of a result. number: whether it is an integer."""

    function: u64
    room: u64
    number: u64
    reserved: u64


class State(Shared):
    """desk: bytes that each job has for its arguments, outcomes and results."""

    desk: u64
    sequence: u64
    calls: u64
    repeated: u64
    refused: u64
    busy: u64
    malformed: u64
    computes: u64
    started: u64


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


class Exception_(Struct):
    """Numba's excinfo: of a task that raised, what the builder has put there instead of a pickle."""

    data: u64
    length: u64


class Told(Struct):
    """The answer to a request for statistics."""

    figures = place(Figures)
    cores = array(Core, processor.MOST)


LEAST_DESKS = 256 << 10
"""Bytes that all jobs' desks have at least."""

LEAST_ROOM = 256
"""Bytes of a result that may be of any size."""

SUM_BYTES = 16
OUTCOME_HEADER = 8

state = place(State)
told = place(Told)
scratch = array(u32, 2)


def begin(computes: u64) -> None:
    """Give every job its desk, of the memory that is left."""
    state.desk = (memory.left() // JOBS) & ~4095
    state.computes = computes
    state.started = counter()
    for i in range(JOBS):
        job.jobs[i].arguments = memory.heap.next
        memory.heap.next += state.desk


def serve(me: Processor) -> None:
    """For ever."""
    while True:
        for _ in range(FRAMES):
            if net.receive():
                if net.datagram.target_port == PORT:
                    handle()
                else:
                    lease.hear()
        lease.tend(False)
        orders.poll()
        if orders.orders.killed:
            power.off(0)
        finish_jobs()
        if state.computes == 0 or not job.step(me):
            sleep(me)


def sleep(me: Processor) -> None:
    """Until a frame, a finished job or a task that nobody else takes."""
    mask_interrupts()
    me.parked = 1
    barrier()
    if virtio.is_waiting() or orders.is_waiting() or is_finished() or (state.computes and job.is_waiting()):
        allow_interrupts()
    else:
        wait_for_interrupt()
        me.wakeups += 1
    me.parked = 0


def is_finished() -> bool:
    """Whether a job is to be answered."""
    for i in range(JOBS):
        if job.jobs[i].state == FINISHED:
            return True
    return False


def finish_jobs() -> None:
    """Answer the jobs that are finished."""
    for i in range(JOBS):
        one = job.jobs[i]
        if one.state == FINISHED:
            collect(one)
            one.state = ANSWERED
            for part in range(one.parts):
                answer_part(one, part)


def handle() -> None:
    """A datagram has come."""
    asked = at(Message, net.datagram.data)
    if net.datagram.length < size_of(Message) or asked.magic != message.MAGIC:
        state.malformed += 1
        return
    kind = asked.kind
    if kind == message.CALL:
        call_(asked)
    elif kind == message.DESCRIBE:
        page(asked, symbol("service_description"), many(u64, symbol("service_length"))[0])
    elif kind == message.STATISTICS:
        figures()
        page(asked, address(told), size_of(Figures) + everyone.count * size_of(Core))
    elif kind == message.HEALTH:
        page(asked, 0, 0)
    elif kind == message.FETCH:
        fetch(asked)
    elif kind == message.CANCEL:
        cancel(asked)
    elif kind == message.SHUTDOWN and orders.orders.is_there == 0:  # else the host's launcher ends it, and nobody else
        page(asked, 0, 0)
        virtio.flush()
        power.off(0)
    else:
        state.malformed += 1


def find(id_: u64) -> u64:
    """The job of a request, by who asked and his number; 0 for none."""
    peer = net.datagram.source << 16 | net.datagram.source_port
    for i in range(JOBS):
        one = job.jobs[i]
        if one.state != FREE and one.id == id_ and one.peer == peer:
            return address(one)
    return 0


def call_(asked: Message) -> None:
    """A call, or a part of one."""
    known = find(asked.id)
    if known:
        again(asked, at(Job, known))
        return
    wrong = refusal(asked)
    if wrong:
        state.refused += 1
        tell(asked, message.REFUSED, wrong)
        return
    place_ = vacant()
    if place_ == 0:
        state.busy += 1
        tell(asked, message.BUSY, text("every place is taken"))
        return
    state.calls += 1
    one = at(Job, place_)
    fill(one, asked)
    add_part(one, asked)


def again(asked: Message, one: Job) -> None:
    """A request that is known: a further part of it, or a repetition."""
    if one.state == FILLING:
        add_part(one, asked)
    else:
        state.repeated += 1
        if one.state == ANSWERED and asked.part == 0:
            for part in range(one.parts):
                answer_part(one, part)


def refusal(asked: Message) -> u64:
    """Why a call is never done: a text; 0 when it is."""
    table = symbol("task_table")
    if asked.task >= many(u64, table)[0]:
        return text("there is no such task")
    if asked.count == 0:
        return text("no tasks are asked for")
    task = many(Task, table + 8)[asked.task]
    parts = (asked.length + message.PART - 1) // message.PART
    if asked.parts != (parts if parts else 1):
        return text("the parts do not fit the length")
    if asked.part:
        return text("its first part is missing")
    per_task = OUTCOME + (room_of(task) if task.room else LEAST_ROOM)
    if asked.length + 64 > state.desk or asked.count > (state.desk - asked.length - 64) // per_task:
        return text("too large for this machine: give it more memory")
    return 0


def room_of(task: Task) -> u64:
    """Bytes that a result takes; 0 where it gets what is left."""
    return task.room + 15 & ~15


def vacant() -> u64:
    """A place for a job: a free one, else that of the oldest answered one; 0 for none."""
    best = 0
    oldest = 0
    for i in range(JOBS):
        one = job.jobs[i]
        if one.state == FREE:
            return address(one)
        if one.state == ANSWERED or (one.state == FILLING and clock.older(one.began, 2000)):
            if best == 0 or one.sequence < oldest:
                best = address(one)
                oldest = one.sequence
    return best


def fill(one: Job, asked: Message) -> None:
    """Note what is asked for."""
    task = many(Task, symbol("task_table") + 8)[asked.task]
    one.state = FREE
    one.function = task.function
    one.length = asked.length
    one.count = asked.count
    one.outcomes = one.arguments + (asked.length + 63 & ~63)
    one.results = one.outcomes + asked.count * OUTCOME
    one.room = room_of(task)
    if one.room == 0:
        one.room = (one.arguments + state.desk - one.results) // asked.count & ~15
    one.failed = 0
    one.id = asked.id
    one.peer = net.datagram.source << 16 | net.datagram.source_port
    one.hardware = net.datagram.hardware
    one.task = asked.task
    one.flags = asked.flags
    one.deadline = asked.deadline
    one.parts = asked.parts
    one.missing = 0
    one.began = counter()
    state.sequence += 1
    one.sequence = state.sequence
    one.counts[LEFT] = 0
    one.counts[DONE] = 0
    one.state = FILLING


def add_part(one: Job, asked: Message) -> None:
    """Take a part, if it is the next; begin when it was the last."""
    size = net.datagram.length - size_of(Message)
    start = asked.part * message.PART
    expected = one.length - start if one.length - start < message.PART else message.PART
    if asked.part == one.missing and asked.length == one.length and size == expected:
        memory.copy(one.arguments + start, net.datagram.data + size_of(Message), size)
        one.missing += 1
    if one.missing < one.parts:
        asked.part = one.missing
        tell(asked, message.WANTED, 0)
        return
    memory.clear(one.outcomes, one.count * OUTCOME)
    one.deadline = clock.after(one.deadline) if one.deadline else 0
    job.publish(one)
    if one.deadline:
        clock.plan()


def collect(one: Job) -> None:
    """Measure a job's answer: of each outcome its status, its length and its data; or a sum."""
    one.length = SUM_BYTES if one.flags & message.SUM else 0
    if one.length == 0:
        for i in range(one.count):
            one.length = one.length + OUTCOME_HEADER + outcome_length(outcome_of(one, i))
    one.parts = (one.length + message.PART - 1) // message.PART


def outcome_of(one: Job, ticket: u64) -> Outcome:
    """A task's outcome."""
    return at(Outcome, one.outcomes + ticket * OUTCOME)


def outcome_length(outcome: Outcome) -> u64:
    """Bytes of a result, or of what is known of a failure."""
    if outcome.status == 0:
        return outcome.length
    if outcome.status >= ABORTED:
        return 8
    return at(Exception_, outcome.exception).length & 0xFFFFFFFF


def outcome_data(one: Job, ticket: u64) -> u64:
    """Where that lies."""
    outcome = outcome_of(one, ticket)
    if outcome.status == 0:
        return one.results + ticket * one.room
    if outcome.status >= ABORTED:
        return address(outcome.fault)
    return at(Exception_, outcome.exception).data


def answer_part(one: Job, part: u64) -> None:
    """Send a part of an answer: what of the outcomes lies between two places of it."""
    data = net.reply_room()
    if data == 0:
        return
    start = part * message.PART
    size = one.length - start if one.length - start < message.PART else message.PART
    body = data + size_of(Message)
    if one.flags & message.SUM:
        sum_up(one, body)
    else:
        place_ = 0
        for i in range(one.count):
            header = many(u32, address(scratch))
            header[0] = outcome_of(one, i).status
            header[1] = outcome_length(outcome_of(one, i))
            put(body, start, size, place_, address(scratch), OUTCOME_HEADER)
            put(body, start, size, place_ + OUTCOME_HEADER, outcome_data(one, i), header[1])
            place_ = place_ + OUTCOME_HEADER + header[1]
            if place_ >= start + size:
                break
    reply = at(Message, data)
    reply.magic = message.MAGIC
    reply.kind = message.REPLY | message.CALL
    reply.flags = one.flags
    reply.task = one.task
    reply.id = one.id
    reply.count = one.count
    reply.deadline = one.failed
    reply.part = part
    reply.parts = one.parts
    reply.length = one.length
    net.send(data, size_of(Message) + size, one.hardware, one.peer >> 16, one.peer & 0xFFFF, PORT)


def sum_up(one: Job, body: u64) -> None:
    """Write the sum of integers, and how many tasks failed."""
    total = 0
    failed = 0
    for i in range(one.count):
        if outcome_of(one, i).status:
            failed += 1
        else:
            total += many(u64, one.results + i * one.room)[0]
    words = many(u64, body)
    words[0] = total
    words[1] = failed


def put(body: u64, start: u64, size: u64, place_: u64, source: u64, count: u64) -> None:
    """Copy what lies at `place_` of the whole, as far as it falls into the part that begins at `start`."""
    first = place_ if place_ > start else start
    last = place_ + count if place_ + count < start + size else start + size
    if first < last:
        memory.copy(body + (first - start), source + (first - place_), last - first)


def tell(asked: Message, kind: u64, words: u64) -> None:
    """A short reply, with a text or without one."""
    length = 0
    if words:
        letters = many(u8, words)
        while letters[length]:
            length += 1
    reply_with(asked, kind, words, length, 0, length)


def page(asked: Message, source: u64, length: u64) -> None:
    """Reply with the part of something that is asked for."""
    start = asked.part * message.PART
    size = 0 if start >= length else length - start
    reply_with(asked, asked.kind | message.REPLY, source + start, size, 0, length)


def reply_with(asked: Message, kind: u64, source: u64, size: u64, count: u64, length: u64) -> None:
    """Reply to a message: its own header with another kind, and data."""
    data = net.reply_room()
    if data == 0:
        return
    shown = size if size < message.PART else message.PART
    memory.copy(data, address(asked), size_of(Message))
    reply = at(Message, data)
    reply.kind = kind
    reply.count = count
    reply.length = length
    memory.copy(data + size_of(Message), source, shown)
    whence = net.datagram
    net.send(data, size_of(Message) + shown, whence.hardware, whence.source, whence.source_port, PORT)


def fetch(asked: Message) -> None:
    """Send one part of an answer once more."""
    known = find(asked.id)
    if known and at(Job, known).state == ANSWERED and asked.part < at(Job, known).parts:
        answer_part(at(Job, known), asked.part)


def cancel(asked: Message) -> None:
    """End a job's tasks, as when its time is over."""
    known = find(asked.id)
    if known and at(Job, known).state == READY:
        at(Job, known).deadline = 1
        mask_interrupts()  # as in `job.publish`
        clock.expire(0)
        allow_interrupts()
        clock.plan()  # whoever was just about to begin a task is interrupted once more
    page(asked, 0, 0)


def figures() -> None:
    """Put together what is told of the machine."""
    all_ = told.figures
    all_.processors = everyone.count
    all_.uptime = counter() - state.started
    all_.calls = state.calls
    all_.repeated = state.repeated
    all_.refused = state.refused
    all_.busy = state.busy
    all_.malformed = state.malformed
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
