"""A command in a guest (`exec`) whose launcher dies or is given another client: who waits for it is told."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from swiftlet.linux.channel import connect
from tests.launching import TestLauncher
from tests.product import Product, eventually
from tests.root.test_launcher import log_worker, read_all

pytestmark = [pytest.mark.root, pytest.mark.crash]


@pytest.fixture
def guest(installation: Product) -> Iterator[Product]:
    installation.ok("run", "-d", "--name", "g", "-t", "host:/usr/bin/busybox", "--", "/usr/bin/busybox", "sleep", "300")
    yield installation
    installation.ok("rm", "-f", "g")


def begun(product: Product, script: str) -> subprocess.Popen[str]:
    process = product.spawn("exec", "g", "--", "/usr/bin/busybox", "sh", "-c", f"echo begun; {script}")
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    return process


def part(product: Product, name: str) -> int:
    found = product.pid(name)
    assert found is not None
    return found


def test_an_exec_whose_launcher_is_killed_ends_with_it(guest: Product) -> None:
    process = begun(guest, "sleep 100")
    os.kill(part(guest, "guest.launcher"), signal.SIGKILL)
    assert process.wait(10) == 137
    eventually(lambda: guest.json("ps", "-a")[0]["state"] == "Stopped")


def test_an_exec_that_ends_while_the_launcher_has_no_daemon_gives_its_own_code(guest: Product) -> None:
    process = begun(guest, "sleep 1; exit 7")
    daemon = part(guest, "api.daemon")
    os.kill(daemon, signal.SIGSTOP)
    try:
        connect(guest.instance.launcher_socket).close()  # the launcher takes it for a new daemon, and then has none
        time.sleep(1.5)
    finally:
        os.kill(daemon, signal.SIGCONT)
    assert process.wait(10) == 7
    assert begun(guest, "exit 3").wait(10) == 3


def test_who_attaches_again_to_a_closed_output_reads_nothing_of_others(
    launcher: TestLauncher, busybox_root: str
) -> None:
    """The numbers of the descriptors that the log worker has closed may be another guest's by then."""
    _, fds = launcher.start(launcher.bundle("a", [busybox_root], ["sh", "-c", "exec 1>&-; sleep 100"]), attach=True)
    worker = log_worker(launcher)
    time.sleep(0.5)
    loud = "i=0; while [ $i -lt 20 ]; do i=$((i+1)); echo of b $i; sleep 0.05; done"
    launcher.start(launcher.bundle("b", [busybox_root], ["sh", "-c", loud]))
    for _ in range(3):
        time.sleep(0.2)
        reply, again = launcher.request("attach", {"id": "a"})
        assert "error" not in reply
        fds += again
    assert launcher.exited("b")["code"] == 0
    assert log_worker(launcher) == worker
    with open(f"{launcher.root}/guests/b/stdout") as file:
        assert len(file.readlines()) == 20
    launcher.request("kill", {"id": "a"})
    launcher.exited("a")
    assert [read_all(fd) for fd in fds[1:]] == [b""] * (len(fds) - 1)
    for fd in fds[1:]:
        os.close(fd)
