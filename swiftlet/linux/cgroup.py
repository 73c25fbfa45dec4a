"""Control groups, versions 2, 1 and both side by side: making a guest's, entering, killing, counting, removing them.

`cgroup_layout` says where they lie and what is written there (its names are here too, for one import);
`cgroup_device` is the list of devices. The caller starts a guest so::

    layout = detect()                    once
    prepare_parent(layout, "swiftlet")   once
    groups = plan(layout, "swiftlet", id, memory=..., pids=...)
    create(groups.paths); apply(groups.writes)
    clone3 into groups.paths[""], if there is one; the child calls `enter` before anything else, since version 1
    knows no CLONE_INTO_CGROUP and does not move what was charged before

What a guest's processes hold is `guest.meter`'s.
"""

from __future__ import annotations

import errno
import os
import time

from swiftlet.linux.cgroup_layout import Layout, Plan, detect, plan, read_text, shares_of
from swiftlet.linux.lean import signal

__all__ = [
    "Layout",
    "Plan",
    "apply",
    "create",
    "detect",
    "enter",
    "groups_below",
    "is_populated",
    "join",
    "kill_all",
    "open_entrances",
    "plan",
    "prepare_parent",
    "processes",
    "remove",
    "remove_parent",
    "shares_of",
    "usage",
]

_OPTIONAL = frozenset(("memory.memsw.limit_in_bytes", "memory.swap.max", "memory.oom.group"))
"""Files that a kernel without swap accounting, or before Linux 4.19, does not have: the limit holds without them."""


def prepare_parent(layout: Layout, folder: str, controllers: tuple[str, ...] = ("cpu", "memory", "pids")) -> None:
    """Make `folder` in every hierarchy that `plan` may use and let its children have the controllers.

    Idempotent. Raises OSError; EBUSY says whose processes are in the way.
    """
    for key, mount in layout.hierarchies.items():
        if key and not set(key.split(",")) & {"cpu", "cpuacct", "memory", "pids", "devices"}:
            continue
        os.makedirs(f"{mount}/{folder}", exist_ok=True)
    if "" in layout.hierarchies:
        wanted = [name for name in controllers if layout.hierarchy_of(name) == ""]
        path = layout.hierarchies[""]
        for part in ["", *folder.split("/")]:
            path = f"{path}/{part}" if part else path
            _enable(path, wanted)


def _enable(path: str, controllers: list[str]) -> None:
    missing = [name for name in controllers if name not in read_text(f"{path}/cgroup.subtree_control").split()]
    if not missing:
        return
    try:
        _write(f"{path}/cgroup.subtree_control", " ".join(f"+{name}" for name in missing))
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        text = "this group holds processes itself, so it cannot give controllers to groups below it: move them into one"
        raise OSError(errno.EBUSY, f"{text} (its cgroup.procs lists them)", path) from None


def create(paths: dict[str, str]) -> None:
    """Make the groups of a guest, or none. Raises OSError; FileExistsError when a guest of this id was left over."""
    made: list[str] = []
    try:
        for path in paths.values():
            os.mkdir(path)
            made.append(path)
    except OSError:
        for path in made:
            os.rmdir(path)
        raise


def apply(writes: tuple[tuple[str, str], ...]) -> None:
    """Do the writes of a plan. Raises OSError with the file's path."""
    for path, value in writes:
        try:
            _write(path, value)
        except FileNotFoundError:
            if path.rpartition("/")[2] not in _OPTIONAL:
                raise


def open_entrances(paths: dict[str, str]) -> list[int]:
    """Descriptors by which a process moves itself into the version 1 groups; version 2 is entered by clone3."""
    return [os.open(f"{path}/tasks", os.O_WRONLY | os.O_CLOEXEC) for key, path in paths.items() if key]


def enter(entrances: list[int]) -> None:
    """Move the calling process through the descriptors of `open_entrances`; to be called first in a new process."""
    for entrance in entrances:
        os.write(entrance, b"0")


def join(paths: dict[str, str], process: int = 0) -> None:
    """Move a process (0: the calling one) into all the groups, version 2 too. Raises OSError with the path."""
    for path in paths.values():
        _write(f"{path}/cgroup.procs", str(process))


def processes(paths: dict[str, str]) -> list[int]:
    """The processes of a guest, in this process's numbers, those of groups that it made within its own included."""
    path = _tracking(paths)
    found: list[int] = []
    for folder, _, _ in os.walk(path):
        try:
            found += [int(word) for word in read_text(f"{folder}/cgroup.procs").split()]
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV):  # the group went away while it was being read
                raise
    return found


def is_populated(paths: dict[str, str]) -> bool:
    """Whether a process is left in the groups; False when they are gone."""
    if "" not in paths:
        return bool(processes(paths))
    try:
        return "populated 1" in read_text(f"{paths['']}/cgroup.events")
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV):
            raise
        return False


def kill_all(paths: dict[str, str], timeout: float = 5.0) -> None:
    """SIGKILL to every process of the groups; with cgroup.kill (Linux 5.14) at once, else until none is left.

    Returns when the signals are sent; `remove` waits for the processes to be gone. Raises TimeoutError after
    `timeout` seconds of processes making others faster than they are killed.
    """
    try:
        if "" in paths:
            _write(f"{paths['']}/cgroup.kill", "1")
            return
    except FileNotFoundError:
        pass
    deadline = time.monotonic() + timeout
    while remaining := processes(paths):
        for process in remaining:
            _kill(process, paths)
        if time.monotonic() > deadline:
            raise TimeoutError(errno.ETIMEDOUT, f"{len(remaining)} processes do not die", _tracking(paths))
        time.sleep(0.001)


def _kill(process: int, paths: dict[str, str]) -> None:
    """Kill a process that is still in the groups once it is held: its number may have gone to a stranger."""
    try:
        handle = os.pidfd_open(process)
    except ProcessLookupError:
        return
    try:
        if process in processes(paths):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)


def remove(paths: dict[str, str], timeout: float = 2.0) -> None:
    """Remove the groups and those below them, waiting up to `timeout` seconds for dying processes to be gone.

    Groups that are gone already are no error. Raises OSError (EBUSY) with the path of one that stays in use.
    """
    deadline = time.monotonic() + timeout
    for path in paths.values():
        pause = 0.0002
        while not _removed(path):
            if time.monotonic() > deadline:
                raise OSError(errno.EBUSY, "control group still has processes", path)
            time.sleep(pause)
            pause = min(pause * 2, 0.02)


def _removed(path: str) -> bool:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        _remove_children(path)
        return False
    return True


def _remove_children(path: str) -> None:
    try:
        children = [entry.path for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return
    for child in children:
        _removed(child)


def groups_below(layout: Layout, folder: str) -> dict[str, dict[str, str]]:
    """Every guest id that has a group below `folder`, with its paths: what a crash may have left behind."""
    found: dict[str, dict[str, str]] = {}
    for key, mount in layout.hierarchies.items():
        try:
            entries = list(os.scandir(f"{mount}/{folder}"))
        except FileNotFoundError:
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                found.setdefault(entry.name, {})[key] = entry.path
    return found


def remove_parent(layout: Layout, folder: str) -> None:
    """Remove `folder` from every hierarchy. Raises OSError (EBUSY) while guests are left in it."""
    for mount in layout.hierarchies.values():
        try:
            os.rmdir(f"{mount}/{folder}")
        except FileNotFoundError:
            pass


def usage(paths: dict[str, str], *, final: bool = False) -> dict[str, int]:
    """What the kernel counted for a guest; a number that this kernel does not keep has no key.

    final: only what is of interest at its end, that is not `memory_bytes` and not `pids`.
    cpu_ns, cpu_user_ns, cpu_system_ns: CPU time in nanoseconds (version 2 counts microseconds). memory_bytes,
    memory_peak_bytes: memory with page cache, now and at most. pids: tasks. oom_kills: processes killed for memory.
    """
    found: dict[str, int] = {}
    elsewhere = {controller for key in paths for controller in key.split(",")}
    for key, path in paths.items():
        counters = [each for each in _counters(key, elsewhere) if not (final and each[0] in ("memory_bytes", "pids"))]
        texts = {file: _words(f"{path}/{file}") for file in {counter[1] for counter in counters}}
        for name, file, field, factor in counters:
            value = _number(texts[file], field)
            if value is not None:
                found.setdefault(name, value * factor)
    return found


_COUNTERS_UNIFIED = (
    ("cpu_ns", "cpu.stat", "usage_usec", 1000),
    ("cpu_user_ns", "cpu.stat", "user_usec", 1000),
    ("cpu_system_ns", "cpu.stat", "system_usec", 1000),
    ("memory_bytes", "memory.current", "", 1),
    ("memory_peak_bytes", "memory.peak", "", 1),
    ("pids", "pids.current", "", 1),
    ("oom_kills", "memory.events", "oom_kill", 1),
)
_COUNTERS_V1 = (
    ("cpu_ns", "cpuacct.usage", "", 1),
    ("cpu_user_ns", "cpuacct.usage_user", "", 1),
    ("cpu_system_ns", "cpuacct.usage_sys", "", 1),
    ("memory_bytes", "memory.usage_in_bytes", "", 1),
    ("memory_peak_bytes", "memory.max_usage_in_bytes", "", 1),
    ("pids", "pids.current", "", 1),
    ("oom_kills", "memory.oom_control", "oom_kill", 1),
)


def _counters(key: str, elsewhere: set[str]) -> list[tuple[str, str, str, int]]:
    """The counters that a hierarchy may have: a file begins with its controller's name.

    elsewhere: controllers of version 1 hierarchies, which the unified one lacks (its cpu.stat it has always).
    """
    if key == "":
        return [
            counter
            for counter in _COUNTERS_UNIFIED
            if counter[1] == "cpu.stat" or counter[1].partition(".")[0] not in elsewhere
        ]
    return [counter for counter in _COUNTERS_V1 if counter[1].partition(".")[0] in key.split(",")]


def _words(path: str) -> list[str]:
    try:
        return read_text(path).split()
    except OSError:
        return []


def _number(words: list[str], field: str) -> int | None:
    """The first word, or the one behind `field`, as a number; None when there is none."""
    try:
        return int(words[words.index(field) + 1] if field else words[0])
    except (ValueError, IndexError):
        return None


def _tracking(paths: dict[str, str]) -> str:
    return paths[""] if "" in paths else next(iter(paths.values()))


def _write(path: str, value: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(handle, value.encode())
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror} (writing {value!r})", path) from None
    finally:
        os.close(handle)
