"""How the machine ends, and with which number."""

from __future__ import annotations

from swiftlet.unikernel.kernel import orders
from swiftlet.unikernel.kernel.memory import reset
from swiftlet.unikernel.metal.words import Device, at, mask_interrupts, out8, out16, stop, text, u8, u64

EXIT_PORT = 0x501
"""QEMU's isa-debug-exit, where there is one: it ends with twice the number, plus one."""

MICROVM_SLEEP = 0xFEA00200
"""QEMU 7.2, hw/i386/microvm: the sleep control register of its generic event device."""

SLEEP_FIVE = 5 << 2 | 1 << 5
"""ACPI 6.4, 4.8.3.7: SLP_TYP 5, SLP_EN."""

Q35_CONTROL = 0x604
"""QEMU 7.2, hw/acpi/ich9: PM1a_CNT; SLP_TYP 0 there is S5."""


class Sleep(Device):
    """The sleep control register."""

    control: u8


def off(code: u64) -> None:
    """Turn the machine off."""
    mask_interrupts()
    orders.report(text("exited "))
    orders.report_number(code)
    out8(EXIT_PORT, code)
    out16(Q35_CONTROL, 0x2000)
    at(Sleep, MICROVM_SLEEP).control = SLEEP_FIVE
    reset()
    stop()
