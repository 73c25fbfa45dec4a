"""Which kernel code a log of QEMU's holds, and which lines it came from. The samples are cut from real output."""

from __future__ import annotations

from pathlib import Path

import pytest

from swiftlet.image.kernel import trace
from swiftlet.image.kernel.trace import Place
from swiftlet.model.error import KernelError

# qemu-system-x86_64 7.2 -d in_asm: firmware, the kernel's start at its physical address, the kernel, its vsyscall page,
# its physical address again, another processor's start, programs.
LOG = """\
----------------
IN:
0xfffffff0:  e9 8d ff                 jmp      0xff80

----------------
IN:
0x01000690:  fc                       cld
0x01000691:  0f 01 15 a0 a2 f9 01     lgdtl    0x1f9a2a0

----------------
IN:
0xffffffff81f24950:  65 48 8b 04 25 28 00 00  movq     %gs:0x28, %rax
0xffffffff81f24958:  00
0xffffffff81f24959:  48 89 44 24 10           movq     %rax, 0x10(%rsp)

----------------
IN:
0xffffffffff600000:  48 c7 c0 60 00 00 00     movq     $0x60, %rax

----------------
IN:
0x01000800:  31 ed                    xorl     %ebp, %ebp

----------------
IN:
0x0009a000:  fa                       cli

----------------
IN:
0xffffffff8100bbbb:  90                       nop

----------------
IN:
0x00401000:  31 ed                    xorl     %ebp, %ebp
0x01000900:  31 ed                    xorl     %ebp, %ebp
0x00007f0c8a4c1b00:  48 89 e7                 movq     %rsp, %rdi

----------------
IN:
0xffffffff8100aaaa:  90                       nop
"""

# addr2line 2.40 -a -i: a plain line, one that was inlined, generated code, and nothing.
ANSWERS = """\
0xffffffff81000110
/src/linux/arch/x86/kernel/head_64.S:101
0xffffffff8100abcd
/src/linux/include/linux/list.h:74 (discriminator 2)
/src/linux/./fs/../kernel/fork.c:1034
0xffffffff8100abff
./include/generated/asm-offsets.h:3
0xffffffff81f00000
??:0
0xffffffff81f00010
/src/linux/kernel/fork.c:?
"""


def test_the_kernels_code_is_found_and_nobody_elses() -> None:
    low = {0xFFFFFFFF81000690, 0xFFFFFFFF81000691, 0xFFFFFFFF81000800}
    high = {0xFFFFFFFF81F24950, 0xFFFFFFFF81F24958, 0xFFFFFFFF81F24959, 0xFFFFFFFF8100BBBB}
    after = {0xFFFFFFFF8100AAAA}
    found = trace.executed(LOG.splitlines(keepends=True))
    assert found == dict.fromkeys(low | high, False) | dict.fromkeys(after, True)


def test_a_log_that_is_cut_short_counts_as_far_as_it_goes() -> None:
    text = LOG[: LOG.index("48 89 44")]
    for end in range(0, len(text), 7):
        assert trace.executed(text[:end].splitlines()).items() <= trace.executed(LOG.splitlines()).items()


def test_lines_are_those_of_the_tree_with_what_they_were_inlined_into() -> None:
    assert list(trace.read_answers(ANSWERS.splitlines(), "/src/linux")) == [
        (0xFFFFFFFF81000110, Place("arch/x86/kernel/head_64.S", 101)),
        (0xFFFFFFFF8100ABCD, Place("include/linux/list.h", 74)),
        (0xFFFFFFFF8100ABCD, Place("kernel/fork.c", 1034)),
    ]


def test_code_that_is_given_up_after_the_start_is_told_apart() -> None:
    found = trace.init_text(
        "ffffffff81e00000 T _sinittext\nffffffff81e00000 T startup\nffffffff81f00000 T _einittext\n"
    )
    assert 0xFFFFFFFF81E12345 in found and 0xFFFFFFFF81F00000 not in found
    with pytest.raises(KernelError, match="_sinittext"):
        trace.init_text("ffffffff81000000 T _text\n")


def test_of_several_logs_the_one_counts_in_which_a_process_ran_before(tmp_path: Path) -> None:
    kernel, process = "0xffffffff81000000:  nop\n", "0x0000000000401000:  nop\n"
    (tmp_path / "0.log").write_text(f"0xffffffff81000010:  nop\n{process}{kernel}")
    (tmp_path / "1.log").write_text(kernel)
    assert trace.executed_in(str(tmp_path)) == {0xFFFFFFFF81000010: False, 0xFFFFFFFF81000000: True}
