"""Interrupts and faults: what came, and whether a task ends by it or the machine. Intel SDM 3, chapter 6."""

from __future__ import annotations

from swiftlet.unikernel.calls.job import ABORTED
from swiftlet.unikernel.kernel import apic, clock, lease, orders, panic, power, processor, virtio
from swiftlet.unikernel.kernel.frame import Frame
from swiftlet.unikernel.metal.words import (
    Packed,
    array,
    at,
    counter,
    export,
    out8,
    page_fault_address,
    symbol,
    u16,
    u32,
    u64,
)

VECTORS = 64
INTERRUPT_GATE = 0x8E

FAULT_STACK_NUMBER = 1
"""Faults get a stack of their own, for what they tell of may be the end of the other one."""

PAGE_FAULT = 14

TICK_CONTROL, ONE_TICK = 0x43, 0x30
"""Intel 8254: counter 0 in mode 0, one interrupt when a count is over; and no count is given to it."""


class Gate(Packed):
    """Intel SDM 3, 6.14.1."""

    low: u16
    selector: u16
    stack: u16
    middle: u16
    high: u32
    reserved: u32


gates = array(Gate, VECTORS)


def begin() -> None:
    """Fill the table, and silence the PC's old controllers and the clock that its firmware has left ticking."""
    out8(0x21, 0xFF)
    out8(0xA1, 0xFF)
    out8(TICK_CONTROL, ONE_TICK)
    for i in range(VECTORS):
        stub = symbol("vector_stubs") + 16 * i
        gate = gates[i]
        gate.low = stub
        gate.middle = stub >> 16
        gate.high = stub >> 32
        gate.selector = processor.CODE
        gate.stack = INTERRUPT_GATE << 8 | (FAULT_STACK_NUMBER if i < 32 else 0)


@export
def trap(place: u64) -> None:
    """Every interrupt and every fault comes here. place: of its Frame."""
    frame = at(Frame, place)
    if frame.vector >= apic.DEVICE_VECTOR:
        interrupted(frame)
    elif processor.mine().resume:
        processor.mine().fault_code = page_fault_address() if frame.vector == PAGE_FAULT else frame.rip
        end_task(frame, ABORTED + frame.vector)
    else:
        panic.fault(frame)


def interrupted(frame: Frame) -> None:
    """A device, another processor or the timer."""
    me = processor.mine()
    me.interrupts += 1
    if frame.vector == apic.SPURIOUS_VECTOR:
        return
    if frame.vector < apic.WAKE_VECTOR:
        virtio.acknowledge()
    apic.finish()
    if me.index == 0 and me.resume:  # while it runs a task nobody else would hear that it is to end
        orders.poll()
        if orders.orders.killed:
            power.off(0)
        lease.tend(True)
    late = False
    if frame.vector == apic.TIMER_VECTOR:
        late = clock.expire(me.index)
        clock.plan()
    elif frame.vector == apic.ABORT_VECTOR and me.job:
        late = clock.is_late(me.job, counter())
    if late and me.resume:
        end_task(frame, ABORTED + frame.vector)


def end_task(frame: Frame, status: u64) -> None:
    """Let this processor go on behind the task that it runs."""
    frame.rax = status
    frame.rip = symbol("task_aborted")
    frame.rsp = processor.mine().resume
    frame.flags = frame.flags | 0x200
    frame.cs = processor.CODE
    frame.ss = 0
