"""`guest check` as a container: it passes; what is taken away is named; and of every call, that its check needs it."""

from __future__ import annotations

import json
import subprocess

import pytest

from swiftlet.gate.options import NEEDS
from swiftlet.linux.syscall_table import NUMBERS
from tests.checking import program
from tests.product import Product

pytestmark = pytest.mark.root

TAKEN = {
    "ipc.pipe": "pipe2 pipe",
    "ipc.unix_socket": "socketpair",
    "ipc.shared_memory": "futex",
    "files.create": "fsync",
    "files.rename": "rename",
    "files.link": "link",
    "files.symlink": "symlink",
    "files.unlink_open": "unlink",
    "files.truncate": "ftruncate",
    "files.sparse": "lseek",
    "files.directories": "getdents64",
    "files.statfs": "statfs",
    "files.times": "utimensat",
    "files.temporary": "linkat",
    "files.mmap": "msync",
    "files.flock": "flock",
    "files.fcntl_lock": "fcntl",
    "files.permissions": "setresuid",
    "files.xattr": "setxattr",
    "files.inotify": "inotify_init1",
    "files.sendfile": "sendfile",
    "files.splice": "splice",
    "files.memfd": "memfd_create",
    "files.aio": "io_setup",
    "signals.handler": "kill",
    "signals.interrupt": "rt_sigaction",
    "signals.mask": "rt_sigpending",
    "signals.queue": "rt_sigqueueinfo",
    "signals.stack": "sigaltstack",
    "signals.child": "waitid",
    "signals.timer": "setitimer",
    "threads.create": "clone3 clone",
    "threads.mutex": "futex",
    "threads.condition": "futex",
    "threads.futex": "futex",
    "threads.local": "futex",
    "threads.robust": "set_robust_list",
    "threads.scheduling": "sched_getaffinity",
    "timers.sleep": "clock_nanosleep",
    "timers.timerfd": "timerfd_create",
    "timers.posix": "timer_create",
    "memory.map": "munmap",
    "memory.protect": "mprotect",
    "memory.execute": "mprotect",
    "memory.large": "mmap",
    "memory.copy_on_write": "clone fork",
    "memory.remap": "mremap",
    "memory.advise": "madvise",
    "memory.lock": "mlock",
    "sockets.tcp": "socket",
    "sockets.udp": "recvfrom",
    "sockets.unix_stream": "accept4",
    "sockets.unix_datagram": "sendto",
    "sockets.descriptors": "recvmsg",
    "events.epoll": "epoll_create1",
    "events.eventfd": "eventfd2",
    "events.signalfd": "signalfd4",
    "events.poll": "poll",
    "events.select": "pselect6 select",
    "processes.fork": "wait4",
    "processes.exec": "execve",
    "processes.script": "execve",
    "processes.spawn": "execve",
    "processes.session": "setsid",
    "processes.terminal": "ioctl",
    "processes.limits": "prlimit64",
    "processes.prctl": "prctl",
    "processes.identity": "setgroups",
    "processes.pidfd": "pidfd_open",
    "system.names": "uname",
    "system.random": "getrandom",
    "system.proc": "readlink",
    "system.meminfo": "openat",
    "system.sysctl": "openat",
    "system.devices": "openat",
    "system.tmp": "openat",
    "system.shm": "openat",
    "system.sysfs": "openat",
    "web.page": "bind",
}
"""Check -> system calls, without which a kernel has not what it is about."""

NOT_A_CALL = {"timers.monotonic", "timers.realtime", "timers.cpu"}
"""They read clocks without any system call (vDSO), the algorithms without a kernel."""


def test_every_check_is_tried_without_what_it_needs():
    assert TAKEN.keys() | NOT_A_CALL == {name for name in NEEDS if not name.startswith("algorithms.")}


@pytest.mark.parametrize("check", TAKEN)
def test_without_its_system_call_a_check_fails_in_one_line_of_its_own(check, tmp_path):
    numbers = ",".join(str(NUMBERS[name]) for name in TAKEN[check].split())
    words = ["run", "--only", check, "--without", numbers, "--scratch", str(tmp_path), "--serve", "1"]
    done = subprocess.run([program(), *words], capture_output=True, text=True, timeout=60)
    line = json.loads(done.stdout.splitlines()[0])
    assert done.returncode == 1
    assert line["check"] == check and not line["ok"] and line["problem"]


def test_on_this_host_every_check_passes_and_leaves_nothing(tmp_path):
    done = subprocess.run([program(), "run", "--scratch", str(tmp_path)], capture_output=True, text=True, timeout=120)
    failed = [line for line in done.stdout.splitlines() if not json.loads(line)["ok"]]
    assert (done.returncode, failed) == (0, [])
    assert list(tmp_path.iterdir()) == []


def verdicts(product: Product, code: int, *options: str) -> dict[str, dict]:
    """Every check's verdict, by name."""
    done = product.run("guest", "check", "-q", "--json", *options)
    assert done.returncode == code, done.stdout[-3000:] + done.stderr
    return {each["check"]: each for each in json.loads(done.stdout)["checks"]}


def failed(found: dict[str, dict]) -> set[str]:
    return {name for name, each in found.items() if not each["ok"]}


@pytest.mark.parametrize("options", [(), ("--userns",), ("--memory", "256M", "--cpus", "1")], ids=" ".join)
def test_a_container_has_what_ordinary_software_needs(product, options):
    found = verdicts(product, 0, *options)
    assert found.keys() == NEEDS.keys() and failed(found) == set()
    compared = [each["values"]["numbers"] for name, each in found.items() if name.startswith("algorithms.")]
    assert compared == [1010, 2000, 810]
    assert found["web.page"]["values"] == {"requests": 2}
    assert all(each["values"]["throughput_mib_s"] > 0 for name, each in found.items() if name.startswith("ipc."))


def test_nothing_is_left_of_the_guest(product):
    verdicts(product, 0, "--only", "files.create")
    verdicts(product, 1, "--only", "files.create", "--without", "mkdir")
    assert product.json("ps", "-a") == []


@pytest.mark.parametrize(
    ("options", "broken", "problem"),
    [
        (("--network", "none"), {"web.page"}, "no port can be published with network none"),
        (("--memory", "32M"), {"memory.large"}, "was killed by signal 9 (Killed), as for want of memory"),
        (
            ("--cap-drop", "SETUID"),
            {"files.permissions", "processes.identity"},
            "setresuid(ANOTHER, ANOTHER, ANOTHER): Operation not permitted",
        ),
        (
            ("--without", "inotify_init1"),
            {"files.inotify"},
            "inotify_init1(IN_CLOEXEC): Function not implemented",
        ),
        (("--without", "bind", "--only", "web"), {"web.page"}, "bind to port 8080: Function not implemented"),
    ],
    ids=["network", "memory", "capability", "call", "web"],
)
def test_what_is_taken_away_is_named_and_nothing_else_is(product, options, broken, problem):
    found = verdicts(product, 1, *options)
    assert failed(found) == broken
    for name in broken:
        assert found[name]["problem"] == problem and tuple(found[name]["options"]) == NEEDS[name]


def test_a_limit_of_processes_is_named_by_what_needs_many(product):
    found = verdicts(product, 1, "--pids", "20", "--only", "threads,processes")
    assert {"threads.create", "processes.fork"} <= failed(found)
    assert "of 64 cannot be made" in found["threads.create"]["problem"]
    assert "processes.exec" not in failed(found), "one check's processes are gone before the next begins"


def test_a_root_that_cannot_be_written_is_blamed_on_its_folder_and_not_on_each_feature(product):
    found = verdicts(product, 1, "--read-only", "--only", "files,system.tmp")
    assert found["files.inotify"]["options"] == list(NEEDS["system.tmp"])
    assert "a folder cannot be made in /tmp: Read-only file system" in found["files.inotify"]["problem"]
