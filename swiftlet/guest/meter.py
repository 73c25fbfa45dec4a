"""What a running guest uses: the control groups' counters and its processes' memory, told into private and shared.

Two guests that map one file of the store share its pages; summing resident sizes would count them twice. The kernel's
proportional set size (PSS) divides each page by those who map it: a guest's private bytes are the pages that only
its process maps, its shared bytes the part of the others that falls to it, so sums over guests are true.
"""

from __future__ import annotations

import os

from swiftlet.linux import cgroup


def measure(paths: dict[str, str]) -> dict[str, int]:
    """`cgroup.usage` of a guest's groups, and `private_bytes`, `shared_bytes` and `pids` where no group counts them.

    A guest that ends meanwhile is measured as far as it was there. Costs a look at every page of every process:
    milliseconds for a guest of some hundred MiB, so it is done when someone asks. Raises OSError when this process
    may not look at the guest's memory.
    """
    counted = cgroup.usage(paths)
    processes = cgroup.processes(paths)
    memory = [memory_of(process) for process in processes]
    counted["private_bytes"] = sum(private for private, _ in memory)
    counted["shared_bytes"] = sum(shared for _, shared in memory)
    counted.setdefault("pids", len(processes))
    return counted


def memory_of(process: int) -> tuple[int, int]:
    """Private bytes and the proportional share of shared ones; (0, 0) for a process that is gone or has none."""
    try:
        with open(f"/proc/{process}/smaps_rollup", "rb") as file:
            return split(file.read().decode())
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0


def split(text: str) -> tuple[int, int]:
    """Private and shared bytes of a smaps_rollup, whose lines are `Name: NUMBER kB` below a heading."""
    kibibytes = {words[0]: int(words[1]) for line in text.splitlines()[1:] if len(words := line.split()) == 3}
    private = kibibytes.get("Private_Clean:", 0) + kibibytes.get("Private_Dirty:", 0)
    return private * 1024, max(0, kibibytes.get("Pss:", 0) - private) * 1024


def available_memory() -> int:
    """Bytes that new guests could take (MemAvailable): the difference of two readings is what a guest really cost."""
    handle = os.open("/proc/meminfo", os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(handle, 4096).decode()
    finally:
        os.close(handle)
    return int(text.partition("MemAvailable:")[2].split()[0]) * 1024
