"""A guest that may trace others lies in wait for what `exec` brings in (CVE-2016-9962), and an exec half killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import textwrap
import time
from typing import Any

import pytest

from swiftlet.linux import cgroup
from tests.launching import TestLauncher
from tests.product import Product, eventually

pytestmark = pytest.mark.root

LIE_IN_WAIT = textwrap.dedent(
    """
    import ctypes, json, os, sys, time
    libc = ctypes.CDLL(None)
    libc.ptrace.argtypes = [ctypes.c_long] * 4
    SEIZE, INTERRUPT, DETACH = 0x4206, 0x4207, 17
    seen, root, begin = set(os.listdir("/proc")), os.stat("/"), time.monotonic()
    print("waiting", flush=True)
    while not os.path.exists("/tmp/enough") and time.monotonic() < begin + 60:
        for name in os.listdir("/proc"):
            if not name.isdigit() or name in seen:
                continue
            seen.add(name)
            if libc.ptrace(SEIZE, int(name), 0, 0):
                continue
            libc.ptrace(INTERRUPT, int(name), 0, 0)
            try:
                os.waitpid(int(name), 0x40000000)
                with open(f"/proc/{name}/status") as file:
                    status = dict(line.split(":", 1) for line in file)
                its = os.stat(f"/proc/{name}/root")
                links = [os.readlink(f"/proc/{name}/fd/{fd}") for fd in os.listdir(f"/proc/{name}/fd")]
                caught = {
                    "early": "memfd:swiftlet" in os.readlink(f"/proc/{name}/exe"),
                    "same root": (its.st_dev, its.st_ino) == (root.st_dev, root.st_ino),
                    "capabilities": int(status["CapPrm"], 16),
                    "descriptors": sorted(link.partition(":")[0] for link in links),
                }
                print(json.dumps(caught), flush=True)
            except OSError:
                pass
            libc.ptrace(DETACH, int(name), 0, 0)
    """
)


def test_a_guest_that_may_trace_finds_nothing_but_its_own_in_an_exec(product: Product) -> None:
    """Of the guest's root and capabilities, with the three streams and a channel on which it can only complain."""
    words = ["--cap-add", "SYS_PTRACE", "-t", "python@3.11", "-t", "coreutils", "--", "python3", "-c", LIE_IN_WAIT]
    product.ok("run", "-d", "--name", "tracer", *words)
    try:
        eventually(lambda: "waiting" in product.ok("logs", "tracer"))
        status = product.ok("exec", "tracer", "--", "cat", "/proc/1/status")
        own = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapPrm"))
        deadline = time.monotonic() + 40
        early: list[dict[str, Any]] = []
        while len(early) < 5 and time.monotonic() < deadline:
            product.ok("exec", "tracer", "--", "true")
            lines = product.ok("logs", "tracer").splitlines()
            early = [each for each in map(json.loads, lines[1:]) if each["early"]]
        assert early, "the control: nothing was caught before it executed its command"
        for caught in early:
            assert caught["same root"] and caught["capabilities"] == own, caught
            assert set(caught["descriptors"]) <= {"pipe", "/dev/null", "socket"}, caught
            assert caught["descriptors"].count("socket") <= 1, caught
    finally:
        product.ok("rm", "-f", "tracer")


def children(parent: int) -> dict[int, str]:
    """The children of a process and what they go by."""
    listed = subprocess.run(["ps", "-o", "pid=,comm=", "--ppid", str(parent)], capture_output=True, text=True).stdout
    return {int(line.split()[0]): line.split()[1] for line in listed.splitlines()}


def exec_of(number: int) -> dict[str, Any]:
    return {
        "id": "a", "exec": str(number), "argv": ["sleep", "77"], "env": {"PATH": "/bin"}, "cwd": "/", "uid": 0,
        "gid": 0, "groups": [], "tty": False, "userns": 0, "capabilities": [], "seccomp": "",
        "rlimits": {}, "roles": [],
    }  # fmt: skip


@pytest.mark.parametrize("execs", [1, 2])
def test_an_exec_whose_middle_was_killed_leaves_nobody_behind_and_harms_no_other(
    launcher: TestLauncher, busybox_root: str, execs: int
) -> None:
    """strace holds the process that sets an exec up after it has made the one that executes the command."""
    launcher.start(launcher.bundle("a", [busybox_root], ["sleep", "100"]))
    pid = launcher.process.pid
    hold = ["strace", "-qq", "-f", "-p", str(pid), "-e", "trace=clone3", "-e", "inject=clone3:delay_exit=1500000"]
    strace = subprocess.Popen(hold, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: tracer_of(pid) == strace.pid)
        for number in range(execs):
            request = {"call": number + 100, "method": "exec", "parameters": exec_of(number)}
            launcher.channel.send(request)
        eventually(lambda: list(children(pid).values()).count("sleep") == 2)
        middle = min(number for number, name in children(pid).items() if name == "swiftlet-launch")
        os.kill(middle, signal.SIGKILL)
        answers = [launcher.channel.receive() for _ in range(execs)]
        found = {answer[0]["call"]: answer[0] for answer in answers if answer is not None}
        assert "killed while it was being set up" in found[100]["error"]["message"]
        assert all("error" not in found[number] for number in range(101, 100 + execs)), found
    finally:
        strace.terminate()
        strace.wait()
    assert list(children(pid).values()).count("sleep") == execs
    launcher.request("kill", {"id": "a"})
    assert launcher.exited("a")["code"] == 137
    assert cgroup.groups_below(launcher.layout, launcher.folder) == {}


def tracer_of(pid: int) -> int:
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("TracerPid"))
