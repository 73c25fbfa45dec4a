"""A call that the loader's command line asks for: no network is needed for it, the console is told, the machine ends.

`run=2:5,7` is a call of the description's third task with the arguments 5 and 7; `tasks=8` that many of it. Arguments
and results are integers, and what is told is their sum.
"""

from __future__ import annotations

from swiftlet.unikernel.calls import answer, message, request
from swiftlet.unikernel.calls.answer import received
from swiftlet.unikernel.calls.job import Job
from swiftlet.unikernel.calls.message import Message
from swiftlet.unikernel.kernel import console, options, power
from swiftlet.unikernel.metal.words import Packed, address, array, many, place, signed, size_of, text, u8, u64

PEER = (1 << 64) - 1
"""Who asks: nobody with an address."""

ARGUMENTS = 8

FAILED = 1
"""The machine's exit code where a task failed, or nothing could be called."""

COMMA, MINUS, COLON = 44, 45, 58


class Asked(Packed):
    """The datagram that would have come."""

    head = place(Message)
    words = array(u64, ARGUMENTS)


class Reading(Packed):
    """Where the next number of the command line begins."""

    next: u64


asked = place(Asked)
reading = place(Reading)
sums = array(u64, 2)


def begin(line: u64) -> None:
    """Ask for the call, if there is one."""
    found = options.value(line, text("run="))
    if found == 0:
        return
    reading.next = found
    head = asked.head
    head.magic = message.MAGIC
    head.kind = message.CALL
    head.flags = message.SUM
    head.task = at_most(number(), 0xFFFF)
    count = 0
    while count < ARGUMENTS and letter() == (COMMA if count else COLON):
        reading.next += 1
        asked.words[count] = number()
        count += 1
    head.length = 8 * count
    head.parts = 1
    head.count = 1
    tasks = options.value(line, text("tasks="))
    if tasks:
        reading.next = tasks
        head.count = at_most(number(), 0xFFFFFFFF)
    wrong = request.refusal(head)
    if wrong:
        console.say(text("not run: "))
        console.say(wrong)
        console.line()
        power.off(FAILED)
    received.data = address(asked)
    received.length = size_of(Message) + 8 * count
    received.peer = PEER
    request.handle()


def tell(one: Job) -> None:
    """Say what came of it, and end the machine."""
    answer.sum_up(one, address(sums))
    console.say(text("result "))
    if signed(sums[0]) < 0:
        console.put(MINUS)
        sums[0] = 0 - sums[0]
    console.say_number(sums[0])
    console.fact(text(" failed "), sums[1])
    power.off(FAILED if sums[1] else 0)


def at_most(value: u64, limit: u64) -> u64:
    """A number that a field of the datagram can hold: larger ones are refused as its largest is."""
    return value if value < limit else limit


def letter() -> u64:
    """The one that is read next."""
    return many(u8, reading.next)[0]


def number() -> u64:
    """Read a number, in decimal."""
    below = letter() == MINUS
    if below:
        reading.next += 1
    result = 0
    while letter() >= 48 and letter() <= 57:
        result = result * 10 + (letter() - 48)
        reading.next += 1
    return 0 - result if below else result
