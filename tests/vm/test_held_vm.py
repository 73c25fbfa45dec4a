"""A snapshot's workload is held still, so that a machine can know who it is before its workload goes on."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from swiftlet.linux.channel import connect
from tests.product import Product, eventually
from tests.vm.test_spares_vm import SNAPSHOT, VM, spares, waiting

pytestmark = [pytest.mark.root, pytest.mark.timeout(300, func_only=True)]

COUNTING = "while :; do i=$((i+1)); echo $i; busybox sleep 0.05; done"
"""Two processes, of which one is another one each time."""


@pytest.fixture(autouse=True)
def cleared(product: Product) -> Iterator[None]:
    yield
    for guest in product.json("ps", "-a"):
        product.ok("rm", "-f", guest["id"])
    product.run("snapshot", "rm", SNAPSHOT)
    eventually(lambda: spares(product) == [])


def numbers(product: Product, guest: str) -> list[int]:
    return [int(line) for line in product.ok("logs", guest).split()]


def first_of(product: Product, guest: str) -> int:
    """The first number that a clone has told."""
    eventually(lambda: len(numbers(product, guest)) > 3)
    return numbers(product, guest)[0]


def goes_on(product: Product, guest: str) -> bool:
    before = numbers(product, guest)[-1]
    time.sleep(0.5)
    return numbers(product, guest)[-1] > before


def behind(product: Product) -> float:
    """Seconds that the source's clock is behind the host's, at least: a date has no fraction, and its command takes
    time, in which it comes nearer."""
    before = time.time()
    return before - float(product.ok("exec", "src", "busybox", "date", "+%s")) - 1


def hold(product: Product, guest: str) -> None:
    """Have the launcher hold a guest's workload, as somebody who is not there any more then."""
    channel = connect(product.instance.launcher_socket)
    channel.send({"call": 1, "method": "keep", "parameters": {"id": guest, "files": ["/etc/hosts"]}})
    channel.fill()
    channel.close()


def is_held(product: Product) -> bool:
    told = json.loads(Path(product.instance.root, "snapshots", SNAPSHOT, "snapshot.json").read_bytes())
    return bool(told["held"])


def written(product: Product, guest: str) -> int:
    """Bytes of everything that a guest's folder has of its outputs."""
    folder = Path(product.instance.root, "guests", guest)
    return sum(each.stat().st_size for each in folder.iterdir() if "log" in each.name and each.is_file())


def test_nothing_of_the_workload_runs_before_its_clone_is_asked_for(product: Product) -> None:
    product.ok("run", "--name", "src", *VM, "--", "busybox", "sh", "-c", COUNTING)
    product.ok("snapshot", "src", "ready")
    assert is_held(product) and goes_on(product, "src")
    first = []
    for pause in (0.0, 3.0):
        spare = waiting(product)
        time.sleep(pause)
        assert written(product, spare) == 0
        guest = product.ok("run", "--from", SNAPSHOT).strip()
        assert guest == spare
        first.append(first_of(product, guest))
        assert abs(time.time() - float(product.ok("exec", guest, "busybox", "date", "+%s"))) < 3
        product.ok("rm", "-f", guest)
    alone = product.ok("run", "--from", SNAPSHOT, "--rm").strip()  # it starts its own machine
    assert {*first, first_of(product, alone)} == {first[0]}
    assert goes_on(product, "src")


def test_a_guest_that_has_groups_of_its_own_is_not_touched(product: Product) -> None:
    """It is cloned all the same; the machine that waits knows nothing yet."""
    script = (
        "busybox mkdir -p /tmp/g && busybox mount -t cgroup2 none /tmp/g && busybox mkdir /tmp/g/own/ && "
        f"echo $$ > /tmp/g/own/cgroup.procs && busybox cat /proc/self/cgroup >&2; {COUNTING}"
    )
    product.ok("run", "--name", "src", "--cap-add", "SYS_ADMIN", *VM, "--", "busybox", "sh", "-c", script)
    eventually(lambda: "own" in product.run("logs", "src").stderr)
    product.ok("snapshot", "src", "ready")
    assert not is_held(product)
    spare = waiting(product)
    time.sleep(1)
    assert written(product, spare) == 0
    guest = product.ok("run", "--from", SNAPSHOT).strip()
    assert guest == spare and product.ok("exec", guest, "busybox", "hostname") == f"{guest}\n"
    eventually(lambda: goes_on(product, guest))


def test_whoever_is_held_by_nobody_goes_on_by_himself(product: Product) -> None:
    """A daemon that was killed between holding and saving tells the guest nothing more."""
    guest = product.ok("run", "--name", "src", *VM, "--", "busybox", "sh", "-c", COUNTING).strip()
    eventually(lambda: len(numbers(product, guest)) > 3)
    hold(product, guest)
    time.sleep(1)
    assert not goes_on(product, guest)
    begin = time.monotonic()
    while not goes_on(product, guest):
        product.ok("exec", guest, "busybox", "true")  # what comes meanwhile makes it no longer
        assert time.monotonic() < begin + 20


def test_a_new_daemon_lets_whoever_is_held_go(product: Product) -> None:
    guest = product.ok("run", "--name", "src", *VM, "--", "busybox", "sh", "-c", COUNTING).strip()
    eventually(lambda: len(numbers(product, guest)) > 3)
    daemon = product.pid("api.daemon")
    assert daemon is not None
    os.kill(daemon, signal.SIGSTOP)
    hold(product, guest)
    os.kill(daemon, signal.SIGKILL)
    begin = time.monotonic()
    eventually(lambda: goes_on(product, guest))
    assert time.monotonic() < begin + 6


def test_what_is_begun_while_a_guest_is_saved_is_none_of_its_clones(product: Product) -> None:
    """Neither a signal nor a command: they wait until the guest goes on. Busy processes make that a while."""
    script = f"trap 'echo 0' USR2; busybox yes >/dev/null & {COUNTING}"
    product.ok("run", "--name", "src", *VM, "--", "busybox", "sh", "-c", script)
    eventually(lambda: numbers(product, "src"))  # it minds the signal by now
    saving = product.spawn("snapshot", "src", "ready")
    begun = 0
    while saving.poll() is None:
        product.ok("kill", "-s", "USR2", "src")
        left = product.run("exec", "-d", "src", "busybox", "sh", "-c", "busybox setsid busybox touch /tmp/begun &")
        begun += left.returncode == 0
    told = saving.communicate()[1]
    assert begun and (saving.returncode == 0 or "commands run" in told), told
    if saving.returncode:
        product.ok("snapshot", "src", "ready")
    eventually(lambda: 0 in numbers(product, "src"))
    guest = product.ok("run", "--from", SNAPSHOT).strip()
    assert first_of(product, guest) != 0
    assert goes_on(product, "src")


def test_the_clock_of_a_guest_that_was_saved_is_right(product: Product) -> None:
    product.ok("run", "--name", "src", *VM, "--", "busybox", "sleep", "1000")
    assert behind(product) < 0.7
    for number in range(4):
        product.ok("snapshot", "src", f"s{number}")
    assert behind(product) < 0.7
    for number in range(4):
        product.ok("snapshot", "rm", f"src:s{number}")
