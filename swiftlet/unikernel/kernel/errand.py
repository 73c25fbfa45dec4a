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

SPACE, COMMA, MINUS, COLON = 32, 44, 45, 58

LARGEST = (1 << 63) - 1


class Asked(Packed):
    """The datagram that would have come."""

    head = place(Message)
    words = array(u64, ARGUMENTS)


class Reading(Packed):
    """Where the next letter of the command line is. odd: 1 when something there was no number of ours."""

    next: u64
    odd: u64


asked = place(Asked)
reading = place(Reading)
sums = array(u64, 2)


def begin(line: u64) -> None:
    """Ask for the call, if there is one."""
    found = options.value(line, text("run="))
    if found == 0:
        return
    read(found, options.value(line, text("tasks=")))
    head = asked.head
    wrong = text("run=TASK:NUMBER,NUMBER tasks=NUMBER it is") if reading.odd else request.refusal(head)
    if wrong:
        console.say(text("not run: "))
        console.say(wrong)
        console.line()
        power.off(FAILED)
    received.data = address(asked)
    received.length = size_of(Message) + head.length
    received.peer = PEER
    request.handle()


def read(run: u64, tasks: u64) -> None:
    """Make the datagram. run, tasks: where the values of these words begin; the second may be 0."""
    head = asked.head
    head.magic = message.MAGIC
    head.kind = message.CALL
    head.flags = message.SUM
    reading.odd = 0
    reading.next = run
    head.task = number(0xFFFF)
    count = 0
    while letter() == (COMMA if count else COLON):
        reading.next += 1
        asked.words[count % ARGUMENTS] = signed_number()
        count += 1
    end()
    if count > ARGUMENTS:
        reading.odd = 1
    head.length = 8 * count
    head.parts = 1
    head.count = 1
    if tasks:
        reading.next = tasks
        head.count = number(0xFFFFFFFF)
        end()


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


def letter() -> u64:
    """The one that is read next."""
    return many(u8, reading.next)[0]


def end() -> None:
    """A word of the command line is over here, or it was odd."""
    if letter() != 0 and letter() != SPACE:
        reading.odd = 1


def signed_number() -> u64:
    """Read an integer of 64 bits."""
    if letter() != MINUS:
        return number(LARGEST)
    reading.next += 1
    return 0 - number(LARGEST + 1)


def number(most: u64) -> u64:
    """Read a number that is not larger than that."""
    begin = reading.next
    result = 0
    while letter() >= 48 and letter() <= 57:
        digit = letter() - 48
        if result > (most - digit) // 10:
            reading.odd = 1
            return 0
        result = result * 10 + digit
        reading.next += 1
    if reading.next == begin:
        reading.odd = 1
    return result
