"""Signals: a fault of a task's, or the end of its time, ends the task with the status that it has in the kernel."""

from __future__ import annotations

from swiftlet.unikernel.calls.job import ABORTED, LATE
from swiftlet.unikernel.linux import console, system
from swiftlet.unikernel.linux.worker import mine
from swiftlet.unikernel.metal.words import Array, Struct, address, i64, many, place, symbol, system_call, text, u64

ILLEGAL, BUS, ARITHMETIC, USER, SEGMENT, PIPE, CHILD = 4, 7, 8, 10, 11, 13, 17
INTERRUPT, TERMINATE = 2, 15
"""signal(7), on x86-64. USER: a task's time is over."""

_WITH_CONTEXT, _ASIDE, _HAS_RETURN = 4, 0x08000000, 0x04000000  # SA_SIGINFO, SA_ONSTACK, SA_RESTORER
_BY_DEFAULT, _IGNORED, _SET_MASK = 0, 1, 2
_AT_ONCE, _CLOSED_BY_EXEC = 0x800, 0x80000

_REGISTERS = 40
"""Bytes before the registers in ucontext_t (asm/ucontext.h); their places follow, as sys/ucontext.h has them."""

_RAX, _RSP, _RIP, _TRAP, _ADDRESS = 13, 15, 16, 20, 22

_PAGE_FAULT = 14

FAILED = 70
"""What the program ends with after a fault that no task is to blame for: EX_SOFTWARE of sysexits.h(3head)."""


class Action(Struct):
    """The kernel's struct sigaction."""

    handler: u64
    flags: u64
    return_: u64
    mask: u64


class Masks(Struct):
    """Sets of signals: bit n - 1 for signal n."""

    taken: u64


_action = place(Action)
_masks = place(Masks)


def begin() -> i64:
    """Handle faults, and say where children's ends and requests to stop are read: signalfd(2)."""
    for number in range(32):
        if 1 << number & (1 << ILLEGAL | 1 << BUS | 1 << ARITHMETIC | 1 << USER | 1 << SEGMENT):
            handle(number, address(signalled), _WITH_CONTEXT | _ASIDE | _HAS_RETURN)
    handle(PIPE, _IGNORED, _HAS_RETURN)
    handle(CHILD, _BY_DEFAULT, _HAS_RETURN)  # who ignored it before this program was started would have none left
    _masks.taken = 1 << CHILD - 1 | 1 << INTERRUPT - 1 | 1 << TERMINATE - 1
    system_call(system.SIGNAL_MASK, _SET_MASK, address(_masks), 0, 8)
    return system_call(system.SIGNAL_FILE, -1, address(_masks), 8, _AT_ONCE | _CLOSED_BY_EXEC)


def handle(number: u64, handler: u64, flags: u64) -> None:
    """sigaction(2)."""
    _action.handler = handler
    _action.flags = flags
    _action.return_ = symbol("signal_return")
    _action.mask = 1 << USER - 1
    system_call(system.SIGNAL_ACTION, number, address(_action), 0, 8)


def signalled(number: u64, information: u64, context: u64) -> None:
    """A signal came to this thread. context: its registers, which it gets back from there."""
    registers = many(u64, context + _REGISTERS)
    me = mine()
    if number == USER:
        if me.resume and me.late:
            end_task(registers, LATE)
        return
    if me.resume == 0:
        panic(number, registers[_RIP], registers[_ADDRESS])
    me.fault = registers[_ADDRESS] if registers[_TRAP] == _PAGE_FAULT else registers[_RIP]
    end_task(registers, ABORTED + registers[_TRAP])


def end_task(registers: Array[u64], status: u64) -> None:
    """Let this thread go on behind the task that it runs."""
    registers[_RAX] = status
    registers[_RIP] = symbol("task_aborted")
    registers[_RSP] = mine().resume


def panic(number: u64, where: u64, touched: u64) -> None:
    """The end of the program: the first thread has made a fault."""
    console.say(text("swiftlet: fault: signal "))
    console.say_number(number)
    console.say(text(" at 0x"))
    console.say_hex(where)
    console.say(text(", address 0x"))
    console.say_hex(touched)
    console.end(console.ERROR)
    system.exit_all(FAILED)
