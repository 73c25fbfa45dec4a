"""How fast this processor's time stamp counter counts: what an emulated guest reads, and cannot measure itself."""

from __future__ import annotations

import ctypes
import mmap
import time

_READ = bytes.fromhex("0f31 48c1e220 4809d0 c3")
"""rdtsc; shl rdx, 32; or rax, rdx; ret (Intel's manual, volume 2B, RDTSC)."""

_APART_SECONDS = 0.05
_TRIES = 20


def frequency_khz() -> int:
    """Counts in a millisecond, to about 10 in a million; 0 where the counter's pace depends on the processor's.

    Takes 50 ms. Raises OSError where no memory can be executed.
    """
    with open("/proc/cpuinfo") as file:
        words = next((line.split() for line in file if line.startswith("flags")), [])
    if "constant_tsc" not in words and "tsc_known_freq" not in words:
        return 0
    memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory[: len(_READ)] = _READ
    anchor = ctypes.c_char.from_buffer(memory)
    read = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(anchor))
    try:
        first = min((_sample(read) for _ in range(_TRIES)), key=_uncertainty)
        time.sleep(_APART_SECONDS)
        last = min((_sample(read) for _ in range(_TRIES)), key=_uncertainty)
    finally:
        del read, anchor
    return round((last[1] - first[1]) * 1e6 / (last[0] - first[0]))


def _sample(read: object) -> tuple[int, int, int]:
    """Nanoseconds, the counter, and how long taking both took."""
    assert callable(read)
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
    count = read()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
    return (before + after) // 2, count, after - before


def _uncertainty(sample: tuple[int, int, int]) -> int:
    return sample[2]
