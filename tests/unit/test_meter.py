"""A guest's memory is told into private and shared bytes so that sums over guests are true."""

import mmap
import os

from swiftlet.guest.meter import available_memory, measure, memory_of, split

ROLLUP = """\
55d6c5a5e000-7ffd5a5fe000 ---p 00000000 00:00 0                          [rollup]
Rss:                6000 kB
Pss:                2500 kB
Pss_Dirty:          1200 kB
Shared_Clean:       4000 kB
Shared_Dirty:          0 kB
Private_Clean:       800 kB
Private_Dirty:      1200 kB
Referenced:         6000 kB
"""


def test_private_is_what_one_process_maps_and_shared_its_part_of_the_rest():
    assert split(ROLLUP) == (2000 * 1024, 500 * 1024)


def test_a_process_without_memory_has_none():
    assert split("") == (0, 0)
    assert split("0-0 ---p 00000000 00:00 0  [rollup]\n") == (0, 0)


def test_a_process_that_is_gone_has_none():
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert memory_of(child) == (0, 0)
    os.waitpid(child, 0)
    assert memory_of(child) == (0, 0)


def test_memory_that_is_written_is_private():
    before, _ = memory_of(os.getpid())
    memory = mmap.mmap(-1, 32 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for offset in range(0, len(memory), 4096):
        memory[offset] = 1
    after, _ = memory_of(os.getpid())
    assert 31 << 20 < after - before < 34 << 20


def test_a_page_that_two_processes_map_is_halved(tmp_path):
    file = tmp_path / "library"
    file.write_bytes(os.urandom(64 << 20))
    begin, go = os.pipe()
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(begin, 1)
        kept = touched(file)
        os.write(told, b"x")
        os.read(begin, len(kept))
        os._exit(0)
    private_before, shared_before = memory_of(child)
    kept = touched(file)
    os.write(go, b"x")
    os.read(ready, 1)
    private, shared = memory_of(child)
    os.write(go, b"x")
    os.waitpid(child, 0)
    assert 29 << 20 < shared - shared_before < 35 << 20  # what others share with both changes too
    assert private - private_before < 8 << 20  # of 64; what either writes of Python's own objects is the child's own
    assert len(kept) == 64 << 20


def touched(file):
    with open(file, "rb") as opened:
        mapped = mmap.mmap(opened.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ)
    assert sum(mapped[offset] for offset in range(0, len(mapped), 4096))
    return mapped


def test_a_guest_that_is_gone_uses_nothing(tmp_path):
    assert measure({"": str(tmp_path / "gone")}) == {"private_bytes": 0, "shared_bytes": 0, "pids": 0}


def test_available_memory_is_counted_in_bytes():
    assert 1 << 20 < available_memory() < 1 << 50
