"""What lies on the stack in an interrupt."""

from __future__ import annotations

from swiftlet.unikernel.metal.words import Packed, u64


class Frame(Packed):
    """What lies on the stack in an interrupt: what `boot.S` pushed, from the last, then what the processor did."""

    r15: u64
    r14: u64
    r13: u64
    r12: u64
    r11: u64
    r10: u64
    r9: u64
    r8: u64
    rdi: u64
    rsi: u64
    rbp: u64
    rdx: u64
    rcx: u64
    rbx: u64
    rax: u64
    vector: u64
    code: u64
    rip: u64
    cs: u64
    flags: u64
    rsp: u64
    ss: u64
