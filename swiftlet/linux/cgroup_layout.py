"""Where the control groups lie on this host and what a guest needs there, as values; `linux.cgroup` does it.

A guest gets a folder only where it needs one::

    unified   /sys/fs/cgroup/FOLDER/ID                 everything
    hybrid    /sys/fs/cgroup/unified/FOLDER/ID         tracking, killing, CPU time, device filter
              /sys/fs/cgroup/{memory,pids}/FOLDER/ID   and cpu, when it is limited
    v1        /sys/fs/cgroup/{memory,pids,cpuacct,devices}/FOLDER/ID

Version 2 counts CPU time in every group (cpu.stat, Linux 4.15) and holds a device filter as a program, both
without a controller, so in a hybrid layout cpuacct and devices are left alone: 110 us less for each guest.

Groups are named by a dict from hierarchy to absolute path; "" is version 2, else the controllers of a version 1
hierarchy as it was mounted, such as "cpu,cpuacct". The values are plain classes: the launcher imports this, and
typing alone costs it 6 ms.
"""

from __future__ import annotations

import errno
import os

from swiftlet.linux.cgroup_device import control_lines

ROOT = "/sys/fs/cgroup"

CPU_PERIOD_US = 100_000
"""The kernel's own default period of a CPU quota."""

_CONTROLLERS = {"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "rdma", "misc", "hugetlb"}
_CONTROLLERS |= {"net_cls", "net_prio", "perf_event"}


class Layout:
    """hierarchies: "" (version 2) or a version 1 list of controllers -> where it is mounted.

    unified_controllers: what version 2 offers (its cgroup.controllers).
    """

    __slots__ = ("hierarchies", "unified_controllers")

    def __init__(self, hierarchies: dict[str, str], unified_controllers: tuple[str, ...] = ()) -> None:
        self.hierarchies = hierarchies
        self.unified_controllers = unified_controllers

    def __repr__(self) -> str:
        return f"Layout({self.hierarchies!r}, {self.unified_controllers!r})"

    @property
    def kind(self) -> str:
        """`unified`, `hybrid` or `v1`."""
        if "" not in self.hierarchies:
            return "v1"
        return "hybrid" if len(self.hierarchies) > 1 else "unified"

    def hierarchy_of(self, controller: str) -> str | None:
        """The key of the hierarchy that has `controller`, or None when this host has none."""
        for key in self.hierarchies:
            if controller in key.split(","):
                return key
        return "" if controller in self.unified_controllers else None


class Plan:
    """The same two members as `model.bundle.CgroupPlan`."""

    __slots__ = ("paths", "writes")

    def __init__(self, paths: dict[str, str], writes: tuple[tuple[str, str], ...]) -> None:
        self.paths = paths
        self.writes = writes


def detect(mounts_text: str | None = None, root: str = ROOT, controllers_text: str | None = None) -> Layout:
    """The hierarchies mounted at or below `root`, from mountinfo and cgroup.controllers (by default this host's).

    Raises OSError when there are none.
    """
    text = read_text("/proc/self/mountinfo") if mounts_text is None else mounts_text
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, path = _hierarchy(line)
        if path and (path == root or path.startswith(root + "/")):
            found.setdefault(key, path)
    if not found:
        raise OSError(errno.ENODEV, "no control group hierarchy is mounted", root)
    if "" in found and controllers_text is None:
        controllers_text = read_text(f"{found['']}/cgroup.controllers")
    return Layout(found, tuple((controllers_text or "").split()))


def _hierarchy(line: str) -> tuple[str, str]:
    """(key, mount point) of a line of mountinfo; an empty mount point when it is not a hierarchy with controllers."""
    before, _, after = line.partition(" - ")
    kind, _, options = after.partition(" ")
    if kind == "cgroup2":
        return "", _unescaped(before.split(" ")[4])
    if kind != "cgroup":
        return "", ""
    controllers = [word for word in options.rpartition(" ")[2].split(",") if word in _CONTROLLERS]
    return ",".join(controllers), _unescaped(before.split(" ")[4]) if controllers else ""


def _unescaped(path: str) -> str:
    """Mountinfo writes blank, tab, newline and backslash as octal."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(code, character)
    return path


def plan(
    layout: Layout,
    folder: str,
    guest_id: str,
    *,
    memory: int = 0,
    cpus: float = 0.0,
    cpu_weight: int = 0,
    pids: int = 0,
    devices: bool = True,
) -> Plan:
    """The groups of one guest and what to write there, in order, before anything runs in them.

    memory in bytes, cpus in cores (0.01 at least), cpu_weight 1..10000, pids a count of tasks; 0 is no limit.
    devices: where only version 1 is mounted, the device list is among the writes; elsewhere the caller attaches
    the filter of `cgroup_device` to the version 2 group. Raises OSError (ENODEV) for a limit that no controller of
    this host can keep.
    """
    unified = "" in layout.hierarchies
    limits = {"memory": memory, "cpu": cpus or cpu_weight, "pids": pids}
    needed = [name for name, limit in limits.items() if limit]
    metered = ["memory"] if unified else ["memory", "pids", "cpuacct"]
    needed += [name for name in metered if layout.hierarchy_of(name) is not None]
    if devices and not unified:
        needed.append("devices")
    paths = {"": f"{layout.hierarchies['']}/{folder}/{guest_id}"} if unified else {}
    for controller in needed:
        key = layout.hierarchy_of(controller)
        if key is None:
            raise OSError(errno.ENODEV, "this host has no control group controller", controller)
        paths[key] = f"{layout.hierarchies[key]}/{folder}/{guest_id}"
    writes = [write for write in _limit_writes(memory, cpus, cpu_weight, pids) if limits[write[0]]]
    if "devices" in needed:
        writes += [("devices", "", "", name, value) for name, value in control_lines()]
    return Plan(paths, tuple(_placed(layout, paths, writes)))


_Write = tuple[str, str, str, str, str]  # controller; file and value in version 2; file and value in version 1


def _limit_writes(memory: int, cpus: float, weight: int, pids: int) -> list[_Write]:
    quota = str(max(1000, round(cpus * CPU_PERIOD_US)))  # the kernel takes no quota below a millisecond
    writes = [
        ("memory", "memory.max", str(memory), "memory.limit_in_bytes", str(memory)),
        ("memory", "memory.swap.max", "0", "memory.memsw.limit_in_bytes", str(memory)),
        ("memory", "memory.oom.group", "1", "", ""),
        ("pids", "pids.max", str(pids), "pids.max", str(pids)),
    ]
    if cpus:
        writes.append(("cpu", "", "", "cpu.cfs_period_us", str(CPU_PERIOD_US)))
        writes.append(("cpu", "cpu.max", f"{quota} {CPU_PERIOD_US}", "cpu.cfs_quota_us", quota))
    if weight:
        writes.append(("cpu", "cpu.weight", str(weight), "cpu.shares", str(shares_of(weight))))
    return writes


def shares_of(weight: int) -> int:
    """cpu.shares (2..262144, usually 1024) of a cpu.weight (1..10000, usually 100), as the kernel and systemd do."""
    return min(262144, max(2, (weight * 1024 + 50) // 100))


def _placed(layout: Layout, paths: dict[str, str], writes: list[_Write]) -> list[tuple[str, str]]:
    """Choose each write's file and value by the version of the hierarchy that has its controller."""
    placed = []
    for controller, file, value, file_v1, value_v1 in writes:
        key = layout.hierarchy_of(controller)
        if key == "" and file:
            placed.append((f"{paths['']}/{file}", value))
        elif key and file_v1:
            placed.append((f"{paths[key]}/{file_v1}", value_v1))
    return placed


def read_text(path: str) -> str:
    """A whole small file of the kernel's. Raises OSError with the path."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(handle, 65536):
            parts.append(part)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(handle)
    return b"".join(parts).decode()
