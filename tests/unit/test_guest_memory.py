"""A machine's memory through its page tables, its debugging end, and the programs whose code is found in it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import threading

import pytest
from elftools.elf.elffile import ELFFile

from swiftlet.guest import gdbstub, ram
from swiftlet.guest.gdbstub import Stub
from swiftlet.image import programs
from swiftlet.model.error import LaunchError
from swiftlet.node import snapshots
from swiftlet.node.bootwatch import digest_of

HIGH = 0xFFFF_8880_0000_0000


@pytest.fixture
def memory():
    """16 pages. Table at 0x1000; a small page at HIGH + 0x5000, a large one (its first pages) at HIGH + 2 MiB."""
    fd = os.memfd_create("memory")
    os.ftruncate(fd, 16 * 4096)

    def put(place: int, value: int) -> None:
        os.pwrite(fd, struct.pack("<Q", value), place)

    indices = [HIGH >> shift & 511 for shift in (39, 30, 21, 12)]
    put(0x1000 + indices[0] * 8, 0x2003)
    put(0x2000 + indices[1] * 8, 0x3003)
    put(0x3000 + indices[2] * 8, 0x4003)
    put(0x3000 + (indices[2] + 1) * 8, 0x83)
    put(0x4000 + (indices[3] + 5) * 8, 0x8000_0000_0000_6003)  # not to be executed
    put(0x4000 + (indices[3] + 6) * 8, 0xFFFF_F000_0003)  # far outside of memory
    os.pwrite(fd, b"hello", 0x6FFB)
    found = ram.Ram(fd, 16 * 4096)
    os.close(fd)
    yield found
    found.close()


def test_a_virtual_address_is_found_through_four_levels(memory: ram.Ram) -> None:
    assert memory.place_of(HIGH + 0x5123, 0x1000, 0) == 0x6123
    assert memory.virtual(HIGH + 0x5FFB, 5, 0x1000, 0) == b"hello"


def test_a_large_page_is_taken_whole(memory: ram.Ram) -> None:
    assert memory.place_of(HIGH + (2 << 20) + 0x6FFB, 0x1000, 0) == 0x6FFB


def test_what_is_not_mapped_or_outside_is_left_out(memory: ram.Ram) -> None:
    assert memory.place_of(HIGH + 0x9000, 0x1000, 0) is None
    assert memory.virtual(HIGH + 0x5FFB, 100, 0x1000, 0) == b"hello"
    assert memory.virtual(HIGH + 0x6000, 8, 0x1000, 0) == b""
    assert memory.place_of(HIGH, 0x7FFF_FFFF_F000, 0) is None
    assert memory.place_of(HIGH + 0x5123, 0x1000, 1 << 12) is None  # five levels begin elsewhere


def test_memory_above_four_gib_lies_behind_what_is_below() -> None:
    assert ram.below_4_gib("microvm", 256 << 20) == 256 << 20
    assert ram.below_4_gib("microvm", 4 << 30) == 3 << 30
    assert ram.below_4_gib("q35", 4 << 30) == 2 << 30


def test_only_a_file_of_the_memorys_size_that_cannot_be_cut_off_is_taken_for_it() -> None:
    fd = os.memfd_create("memory-backend-memfd", os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, 8192)
        for size in (8192, 4096):
            with pytest.raises(FileNotFoundError, match="memory is not to be found"):
                ram.memory_file(os.getpid(), size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        with pytest.raises(FileNotFoundError):
            ram.memory_file(os.getpid(), 4096)
        found = ram.memory_file(os.getpid(), 8192)
        assert os.path.sameopenfile(found, fd)
        os.close(found)
    finally:
        os.close(fd)


def test_a_memory_that_is_cut_off_while_it_is_copied_ends_the_copy(tmp_path, monkeypatch) -> None:
    paths = tmp_path / "source", tmp_path / "target"
    paths[0].write_bytes(b"x" * 8192)
    real = os.sendfile

    def cut(target: int, source: int, start: int, size: int) -> int:
        os.truncate(paths[0], 0)
        return real(target, source, start, size)

    monkeypatch.setattr(os, "sendfile", cut)
    with (
        open(paths[0], "rb") as source,
        open(paths[1], "wb") as target,
        pytest.raises(OSError, match="ends before it should"),
    ):
        snapshots._copy(source.fileno(), target.fileno())


class Machine(threading.Thread):
    """Answers as QEMU does: an acknowledgement for each packet, and a word when it stops."""

    def __init__(self, sock: socket.socket, runs: bool) -> None:
        super().__init__(daemon=True)
        self.sock = sock
        self.runs = runs

    def send(self, content: bytes) -> None:
        self.sock.sendall(b"$%b#%02x" % (content, sum(content) & 255))

    def run(self) -> None:
        with contextlib.suppress(OSError):  # whoever looked has gone
            self.serve()

    def serve(self) -> None:
        data = b""
        while got := self.sock.recv(4096):
            data += got
            while data:
                if data[:1] == b"$":
                    if b"#" not in data or len(data) < data.index(b"#") + 3:
                        break
                    content, _, data = data[1:].partition(b"#")
                    data = data[2:]
                    self.sock.sendall(b"+")
                    self.answer(content)
                else:
                    first, data = data[:1], data[1:]
                    if self.runs and first == b"\x03":
                        self.runs = False
                        self.send(b"T02thread:01;")

    def answer(self, content: bytes) -> None:
        if content == b"?":
            self.send(b"T05thread:01;")
        elif content == b"qC":
            self.send(b"QC01")
        elif content == b"g":
            numbers = [*range(17), 0x246, 0x10, 0, 0, 0, 0, 0, 1, 2, 3, 1 << 31, 0, 0x1000, 0x20, 0]
            self.send(struct.pack("<17Q7I8Q", *numbers).hex().encode())
        elif content == b"c":
            self.runs = True
        else:
            self.send(b"OK" if content != b"Z1,bad,1" else b"E22")


@pytest.mark.parametrize("runs", [False, True])
def test_a_machine_is_stopped_looked_at_and_let_go_whether_it_ran_or_not(runs: bool) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        Machine(theirs, runs).start()
        stub = Stub(ours)
        for _ in range(3):
            stub.resume()
            assert not stub.stopped_within(0.01)  # an acknowledgement is no stop
            stub.stop()
            registers = stub.registers(0)
            assert (registers.ip, registers.sp, registers.bp, registers.ring) == (16, 7, 6, 0)
            assert (registers.cr0, registers.cr3, registers.cr4) == (1 << 31, 0x1000, 0x20)
        with pytest.raises(LaunchError, match="refuses Z1"):
            stub.set_breakpoint(0xBAD)


def test_a_machine_that_does_not_answer_is_given_up(monkeypatch) -> None:
    monkeypatch.setattr(gdbstub, "ANSWER_SECONDS", 0.05)
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(LaunchError, match="does not answer"):
        Stub(ours)


class Hostile(Machine):
    """Answers a question for registers with what it likes, as often as it likes."""

    def __init__(self, sock: socket.socket, said: bytes, times: int = 1) -> None:
        super().__init__(sock, False)
        self.said, self.times = said, times

    def answer(self, content: bytes) -> None:
        if content == b"g":
            for _ in range(self.times):
                self.sock.sendall(self.said)
        else:
            super().answer(content)


@pytest.mark.parametrize(
    ("said", "times", "told"),
    [
        (b"$zz#00", 1, "does not keep to its protocol"),
        (b"$0000#00", 1, "does not keep to its protocol"),
        (b"$\xff#00", 1, "does not keep to its protocol"),
        (b"$" + b"0" * 65536, 1 << 30, "does not keep to its protocol"),
        (b"$T05#00", 1 << 30, "does not answer"),
    ],
)
def test_a_debugging_end_that_talks_nonsense_or_without_end_is_given_up(
    said: bytes, times: int, told: str, monkeypatch
) -> None:
    monkeypatch.setattr(gdbstub, "ANSWER_SECONDS", 0.5)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        Hostile(theirs, said, times).start()
        stub = Stub(ours)
        with pytest.raises(LaunchError, match=told):
            stub.registers(0)


def test_a_machine_that_ends_is_told_by_the_end_of_the_stream() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        machine = Machine(theirs, True)
        machine.start()
        stub = Stub(ours)
        stub.resume()
        theirs.shutdown(socket.SHUT_RDWR)
        with pytest.raises(EOFError):
            stub.stop()
            stub.registers(0)


LIBRARY = "/usr/lib/x86_64-linux-gnu/libc.so.6"


def test_a_page_of_code_is_found_in_its_file_wherever_that_lies(tmp_path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/c.so").symlink_to("elsewhere")
    (tmp_path / "lib/libc.so.6").write_bytes(open(LIBRARY, "rb").read())
    (tmp_path / "text").write_text("no program")
    program = programs.program_of(LIBRARY, "")
    assert program is not None
    offset = program.spans[0][0] + 5 * 4096
    page = program.content[offset : offset + 4096]
    found = programs.pages([str(tmp_path)], {digest_of(page), b"nobody's"}, digest_of)
    assert [(each.program.path, each.offset) for each in found.values()] == [("/lib/libc.so.6", offset)]


def test_functions_are_named_as_another_reader_names_them() -> None:
    program = programs.program_of(LIBRARY, "")
    assert program is not None
    functions = programs.Functions(program)
    with open(LIBRARY, "rb") as file:
        elf = ELFFile(file)
        rows = [
            (symbol["st_value"], symbol.name)
            for symbol in elf.get_section_by_name(".dynsym").iter_symbols()
            if symbol["st_info"]["type"] in ("STT_FUNC", "STT_LOOS") and symbol["st_size"]
        ]
        names: dict[int, set[str]] = {}
        for address, name in rows:
            names.setdefault(address, set()).add(name)
        offsets = {address: next(iter(elf.address_offsets(address))) for address in names}
    assert len(names) > 1000
    for address, wanted in names.items():
        assert functions.name(offsets[address]) in wanted


def test_a_damaged_symbol_table_names_nothing() -> None:
    program = programs.program_of(LIBRARY, "")
    assert program is not None
    broken = bytearray(program.content)
    broken[40:48] = struct.pack("<Q", len(broken) - 10)
    assert programs.Functions(program._replace(content=bytes(broken))).name(program.spans[0][0]) == ""
