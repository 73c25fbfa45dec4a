"""A kernel's log, symbols and stacks, read from its memory as Linux 6.1 lays them out."""

from __future__ import annotations

import struct

import pytest

from swiftlet.image.kernel import initcalls
from swiftlet.image.kernel.orc import Unwinder, unwinder_of
from swiftlet.image.kernel.printk import Log, Record
from swiftlet.image.kernel.symbols import Image, Symbols
from swiftlet.model.error import KernelError

SYSTEM_MAP = """\
ffffffff81000000 T _stext
ffffffff81000000 T _text
ffffffff81000690 t pvh_start_xen
ffffffff81001000 T schedule
ffffffff81001200 t worker
ffffffff818008f2 T _etext
ffffffff81c39cb0 d prb
ffffffff81ed9000 T _sinittext
ffffffff81ed9b6d T start_kernel
ffffffff81eda089 T do_one_initcall
ffffffff81ee5d2a t virtio_blk_init
ffffffff81f09068 T _einittext
"""

RECORDED = (
    Record(348_000_000, "calling  0xffffffff81ee5d2a @ 1"),
    Record(421_300_000, "virtio_blk virtio3: 1/0/0 default/read/poll queues"),
    Record(448_960_000, "initcall 0xffffffff81ee5d2a returned 0 after 27660 usecs"),
    Record(450_000_000, "initcall acpi_hed_driver_init+0x0/0x2e returned -19 after 4 usecs"),
)
"""From a machine, but for the second initcall: that is how a kernel with KALLSYMS writes."""

RING, DESCRIPTORS, INFOS, DATA, POINTER = 0x1000, 0x2000, 0x3000, 0x4000, 0x800
BITS, DATA_BITS = 3, 8


class Memory:
    """A kernel's memory with a log in it."""

    def __init__(self, texts: list[str]) -> None:
        self.bytes = bytearray(0x5000)
        self.put(POINTER, struct.pack("<Q", RING))
        place, number = 0, 0
        size = 1 << DATA_BITS
        for number, text in enumerate(texts, 1):
            block = (8 + len(text) + 7) // 8 * 8
            begin = place
            if place // size != (place + block) // size:
                start, place = 0, (place // size + 1) * size + block
            else:
                start, place = place % size, place + block
            slot = number % (1 << BITS)
            self.put(DATA + start, struct.pack("<Q", number) + text.encode())
            self.put(DESCRIPTORS + slot * 24, struct.pack("<QQQ", 2 << 62 | number, begin, place))
            self.put(INFOS + slot * 88, struct.pack("<QQH", number, number * 1000, len(text)))
        oldest = max(1, number - 2)
        self.put(RING, struct.pack("<I4xQQQQ", BITS, DESCRIPTORS, INFOS, number, oldest))
        self.put(RING + 48, struct.pack("<I4xQ", DATA_BITS, DATA))

    def put(self, place: int, raw: bytes) -> None:
        self.bytes[place : place + len(raw)] = raw

    def read(self, address: int, size: int) -> bytes:
        return bytes(self.bytes[address : address + size])


def test_the_newest_records_are_read_with_their_times() -> None:
    log = Log(POINTER, Memory(["one", "two", "three"]).read)
    assert log.records() == [Record(1000, "one"), Record(2000, "two"), Record(3000, "three")]
    assert log.newest_ns() == 3000


def test_a_record_that_did_not_fit_in_at_the_end_of_the_ring_is_read_from_its_beginning() -> None:
    texts = [letter * 60 for letter in "abcde"]
    assert [record.text for record in Log(POINTER, Memory(texts).read).records()] == texts[2:]


def test_a_record_that_is_being_written_is_left_out() -> None:
    memory = Memory(["one", "two"])
    memory.put(DESCRIPTORS + 2 * 24, struct.pack("<Q", 2))
    assert [record.text for record in Log(POINTER, memory.read).records()] == ["one"]


def test_a_ring_that_is_not_there_or_says_nonsense_has_no_records() -> None:
    assert Log(POINTER, lambda address, size: b"").records() == []
    assert Log(POINTER, lambda address, size: b"").newest_ns() == 0
    memory = Memory(["one"])
    memory.put(RING, struct.pack("<I", 60))
    assert Log(POINTER, memory.read).records() == []
    memory = Memory(["one"])
    memory.put(RING + 48, struct.pack("<I", 60))
    assert Log(POINTER, memory.read).records() == []


def test_a_ring_of_which_only_the_beginning_is_mapped_has_no_records() -> None:
    memory = Memory(["one"])
    log = Log(POINTER, lambda address, size: b"" if address == RING + 48 else memory.read(address, size))
    assert log.records() == []


def test_an_address_is_named_by_the_function_that_it_is_in() -> None:
    symbols = Symbols(SYSTEM_MAP)
    assert symbols.name(0xFFFFFFFF81001000) == "schedule"
    assert symbols.name(0xFFFFFFFF810011FF) == "schedule"
    assert symbols.name(0xFFFFFFFF81ED9C00) == "start_kernel"
    assert symbols.address("prb") == 0xFFFFFFFF81C39CB0


@pytest.mark.parametrize("address", [0, 0x1000690, 0xFFFFFFFF818008F2, 0xFFFFFFFF81C39CB0, 0xFFFFFFFFC0000000])
def test_what_is_no_code_of_the_kernels_has_no_name(address: int) -> None:
    assert Symbols(SYSTEM_MAP).name(address) == ""


def test_code_behind_that_of_the_start_has_the_name_of_its_section() -> None:
    symbols = Symbols(SYSTEM_MAP + "ffffffff81f0c000 D early_top_pgt\n")
    assert symbols.name(0xFFFFFFFF81F09D1D) == ".altinstr_aux"
    assert symbols.name(0xFFFFFFFF81F0C000) == ""


def test_a_system_map_without_its_ends_is_refused() -> None:
    with pytest.raises(KernelError, match="_einittext"):
        Symbols(SYSTEM_MAP.replace("_einittext", "_something"))


def test_initcalls_of_a_log_are_named_by_address_or_by_name() -> None:
    found = initcalls.read_log(RECORDED, Symbols(SYSTEM_MAP))
    assert found == [
        initcalls.Initcall("virtio_blk_init", 448_960_000, 27.66, 0),
        initcalls.Initcall("acpi_hed_driver_init", 450_000_000, 0.004, -19),
    ]


def test_a_source_file_declares_its_initcalls_and_those_of_its_driver_macros() -> None:
    source = "fs_initcall(inet_init);\nmodule_init(init);\nmodule_virtio_driver(virtio_rng_driver);\n"
    source += "late_initcall_sync(clear);\n/* no_initcall */ x = y(initcall);\nbuiltin_platform_driver(hed)\n"
    wanted = {"inet_init", "init", "virtio_rng_driver_init", "clear", "hed_init"}
    assert initcalls.declared_in(source) == wanted


def test_an_initcall_that_two_objects_declare_is_nobodys(tmp_path) -> None:
    for name, text in (("a", "module_init(init);\ncore_initcall(mine);"), ("b", "module_init(init);")):
        (tmp_path / f"{name}.c").write_text(text)
    found = initcalls.objects_of(("init", "mine", "other"), ("a.o", "b.o", "gone.o"), str(tmp_path))
    assert found == {"mine": "a.o"}


def entry(sp_offset: int, bp_offset: int, sp: int, bp: int, kind: int = 0, end: int = 0) -> bytes:
    return struct.pack("<hhH", sp_offset, bp_offset, sp | bp << 4 | kind << 8 | end << 10)


SP, BP, PREVIOUS = 5, 4, 1
STARTS = [0x100, 0x200, 0x300, 0x400]
TABLES = Unwinder(
    STARTS,
    entry(16, 0, SP, 0)  # 0x100: one word of its own
    + entry(16, -16, BP, PREVIOUS)  # 0x200: keeps its caller's bp below the return address
    + entry(0, 0, SP, 0, 1)  # 0x300: an interrupt's entry, with all registers on the stack
    + entry(0, 0, SP, 0, 0, 1),  # 0x400: where every stack ends
)


def test_calls_are_followed_by_stack_pointer_by_base_pointer_and_through_an_interrupt() -> None:
    registers = 0x1020
    words = {0x1008: 0x210, 0x1018: 0x310, 0x1010: 0x77}
    words |= {registers + 32: 0, registers + 128: 0x110, registers + 136: 0x10, registers + 152: 0x2000}
    words |= {0x2008: 0x410}
    assert TABLES.frames(0x150, 0x1000, 0x1010, words.get) == [0x150, 0x210, 0x310, 0x110, 0x410]


def test_a_stack_ends_where_a_program_was_interrupted_or_memory_is_not_mapped() -> None:
    words = {0x1000 + 128: 0x110, 0x1000 + 136: 0x33, 0x1000 + 152: 0x2000}
    assert TABLES.frames(0x310, 0x1000, 0, words.get) == [0x310]
    assert TABLES.frames(0x150, 0x1000, 0, {}.get) == [0x150]


def test_a_stack_that_leads_in_a_circle_has_an_end() -> None:
    assert len(TABLES.frames(0x150, 0x1000, 0, lambda address: 0x150)) == 64


def test_tables_of_a_later_kernel_are_not_read() -> None:
    assert unwinder_of("6.6.1", Symbols(SYSTEM_MAP), None) is None  # type: ignore[arg-type]


def test_what_is_no_elf_image_is_refused() -> None:
    with pytest.raises(KernelError, match="no ELF"):
        Image(b"short")
