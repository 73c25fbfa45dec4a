"""The first thread's life: from the command line to serving."""

from __future__ import annotations

from swiftlet.unikernel.calls import answer, trace
from swiftlet.unikernel.calls.figures import state
from swiftlet.unikernel.calls.job import ANSWERED, FREE, JOBS, READY, Job, jobs
from swiftlet.unikernel.kernel import features
from swiftlet.unikernel.linux import console, crew, fault, network, options, service, system
from swiftlet.unikernel.linux.console import say
from swiftlet.unikernel.linux.system import Time
from swiftlet.unikernel.linux.worker import DONE, NEXT, bell
from swiftlet.unikernel.metal.words import (
    Struct,
    address,
    array,
    at,
    counter,
    export,
    i64,
    place,
    system_call,
    text,
    u16,
    u32,
    u64,
    unsigned,
)

REFUSED = 71
"""What the program ends with when the system refuses what it needs: EX_OSERR of sysexits.h(3head)."""

UNFIT = 1
"""What the program ends with on a processor that cannot run its tasks."""

AGAIN = 10 * system.MILLISECOND
"""Nanoseconds after which what the system has refused, or what has not ended yet, is asked for again."""

IN_A_ROW = 64
"""Datagrams that are taken before tasks are looked after."""

_SOCKET, _SIGNALS, _BELL, _FILES = 0, 1, 2, 3
_READABLE = 1


class Awaited(Struct):
    """struct pollfd."""

    file: u32
    wanted: u16
    found: u16


class Waiting(Struct):
    """files: the socket, signals and the bell. message: what is read of the latter two."""

    files = array(Awaited, _FILES)
    time = place(Time)
    message = array(u64, 16)


waiting = place(Waiting)


@export
def linux_main(stack: u64) -> None:
    """Where the program begins. stack: where the number of its arguments lies."""
    if not features.is_fit():
        console.say(text("swiftlet: "))
        features.complain(address(say))
        console.end(console.ERROR)
        system.exit_all(UNFIT)
    options.read(stack)
    state.started = counter()
    bell.file = needed(crew.begin(), text("events are"))
    signals = needed(fault.begin(), text("signals are"))
    chosen = options.options
    socket = needed(network.begin(chosen.address, chosen.port), text("the port is"))
    listen(_SOCKET, socket)
    listen(_SIGNALS, signals)
    listen(_BELL, bell.file)
    console.say(text("ready on "))
    console.say_address(chosen.address)
    console.put(ord(":"))
    console.say_number(network.port())
    console.say(text(", a process for each task") if chosen.processes else text(", a thread for each task"))
    console.end(console.OUTPUT)
    while True:
        serve()


def needed(result: i64, what: u64) -> u64:
    """What the system has given. Ends the program where that is an error."""
    if result < 0:
        console.say(text("swiftlet: "))
        console.say(what)
        console.say(text(" refused: error "))
        console.say_number(unsigned(-result))
        console.end(console.ERROR)
        system.exit_all(REFUSED)
    return unsigned(result)


def listen(index: u64, file: u64) -> None:
    """Wait for a file too."""
    waiting.files[index].file = file
    waiting.files[index].wanted = _READABLE


def serve() -> None:
    """What has come, what has ended, and what can be begun; then wait."""
    for _ in range(IN_A_ROW):
        if not service.receive():
            break
    crew.collect_ended()
    stuck = crew.start_waiting()
    if stuck and at(Job, stuck).counts[NEXT] == 0:
        at(Job, stuck).state = FREE
        answer.refuse(at(Job, stuck), text("the system has no thread or process for a task"))
    finish_jobs()
    wait(patience())


def finish_jobs() -> None:
    """Answer the jobs of which every task has ended."""
    for i in range(JOBS):
        one = jobs[i]
        if one.state == READY and one.counts[DONE] == one.count:
            crew.collect_ended()
            service.count(one)
            answer.collect(one)
            one.state = ANSWERED
            answer.send_all(one)
            trace.note(trace.ANSWERED, 0, one.id, one.count)


def patience() -> u64:
    """Nanoseconds until there is something to do, whatever comes; 0 where there is no end. Ends what is late."""
    least = AGAIN if bell.hungry and crew.crew.running == 0 else 0
    now = 0
    late = False
    for i in range(JOBS):
        one = jobs[i]
        if one.state == READY and one.deadline:
            if now == 0:
                now = system.now(address(crew.first.time))
            left = one.deadline - now if one.deadline > now else AGAIN
            late = late or one.deadline <= now
            least = left if least == 0 or left < least else least
    if late:
        crew.expire()
    return least


def wait(nanoseconds: u64) -> None:
    """Until a file has something, a signal comes, or the time is over: ppoll(2)."""
    service.desk.waits += 1
    waiting.time.seconds = nanoseconds // system.SECOND
    waiting.time.nanoseconds = nanoseconds % system.SECOND
    until = address(waiting.time) if nanoseconds else 0
    found = system_call(system.POLL, address(waiting.files), _FILES, until, 0, 8)
    if found > 0:
        if waiting.files[_BELL].found:
            system.read(bell.file, address(waiting.message), 8)
        if waiting.files[_SIGNALS].found:
            read_signals(waiting.files[_SIGNALS].file)


def read_signals(file: u64) -> None:
    """Take what has come, struct signalfd_siginfo by struct; end the program where that is wanted."""
    while system.read(file, address(waiting.message), 128) > 0:
        if waiting.message[0] & 0xFFFFFFFF != fault.CHILD:
            system.exit_all(0)
