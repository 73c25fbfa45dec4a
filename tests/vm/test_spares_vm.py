"""A machine waits to be the next clone of a snapshot: who sees it, what it costs nobody, and how it always goes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from swiftlet.guest import qmp
from swiftlet.image.kernel.build import Kernel
from swiftlet.linux import cgroup
from swiftlet.model.error import SwiftletError
from tests import census
from tests.product import Product, eventually
from tests.vm.conftest import installed

pytestmark = [pytest.mark.root, pytest.mark.timeout(300, func_only=True)]

VM = ("-d", "--as", "vm", "-t", "busybox")
SNAPSHOT = "src:ready"


def spares(product: Product) -> list[str]:
    """Ids that have a folder and a machine, and are in no listing."""
    listed = {guest["id"] for guest in product.json("ps", "-a")}
    return [
        name for name in os.listdir(f"{product.instance.root}/guests") if name not in listed and machine(product, name)
    ]


def folders(product: Product) -> list[str]:
    """The same with those that have no machine yet."""
    listed = {guest["id"] for guest in product.json("ps", "-a")}
    return [name for name in os.listdir(f"{product.instance.root}/guests") if name not in listed]


def machine(product: Product, id_: str) -> list[int]:
    """The processes of a guest, by its control group."""
    found = cgroup.groups_below(cgroup.detect(), product.instance.cgroup).get(id_, {})
    return sorted(cgroup.processes(found)) if found else []


def status(product: Product, id_: str) -> str:
    """What QEMU says of a machine."""

    async def ask() -> str:
        async with qmp.session(f"{product.instance.root}/guests/{id_}") as monitor:
            return str((await monitor.execute("query-status"))["status"])

    try:
        return asyncio.run(ask())
    except SwiftletError:
        return ""


def waiting(product: Product) -> str:
    """The one machine that waits, when it does: it stands still."""

    def found() -> str:
        there = spares(product)
        assert len(there) == 1, there
        return there[0] if status(product, there[0]) == "paused" else ""

    spare = str(eventually(found))
    time.sleep(0.1)  # until that has been told
    return spare


def gone(product: Product, id_: str) -> bool:
    """Whether nothing is left of it: folder, control group, processes."""
    return not os.path.exists(f"{product.instance.root}/guests/{id_}") and id_ not in census.groups(product)


@pytest.fixture
def taken(product: Product) -> Iterator[Product]:
    """With a snapshot of a web server, and a machine that waits to be its clone."""
    serve = ("busybox", "httpd", "-f", "-p", "80", "-h", "/etc")
    product.ok("run", "--name", "src", "-p", "127.0.0.1::80", *VM, "--", *serve)
    product.ok("snapshot", "src", "ready")
    yield product
    for guest in product.json("ps", "-a"):
        product.ok("rm", "-f", guest["id"])
    product.run("snapshot", "rm", SNAPSHOT)
    eventually(lambda: spares(product) == [])


def test_the_next_clone_is_the_machine_that_waits(taken: Product) -> None:
    seen = set()
    for number in range(3):
        spare = waiting(taken)
        pids = machine(taken, spare)
        assert [guest["name"] for guest in taken.json("ps", "-a")] == ["src"], "nobody sees it"
        assert taken.run("inspect", spare).returncode != 0 and taken.run("rm", "-f", spare).returncode != 0
        guest = taken.ok("run", "--from", SNAPSHOT, "--name", f"clone-{number}", "-p", "127.0.0.1::80").strip()
        assert guest == spare and set(pids) <= set(machine(taken, guest))
        (known,) = taken.json("inspect", guest)
        assert known["name"] == f"clone-{number}" and known["state"] == "Running"
        assert [each["clones"] for each in taken.json("snapshot", "ls")] == [[f"clone-{number}"]]
        assert [each["to"] for each in known["journal"]] == ["Generating", "Generated", "Running"]
        assert (time.time_ns() - known["journal"][0]["time_ns"]) < 60e9
        script = "cat /etc/machine-id; hostname; ip addr show eth0; head -c 16 /dev/urandom | hexdump | head -1"
        seen.add(taken.ok("exec", guest, "busybox", "sh", "-c", script))
        host, _, port = known["network"]["ports"][0].split("->")[0].rpartition(":")
        with socket.create_connection((host, int(port)), 10) as asked:
            asked.sendall(b"GET /hostname HTTP/1.0\r\n\r\n")
            assert guest.encode() in asked.makefile("rb").read()
        taken.ok("rm", "-f", guest)
        assert gone(taken, guest)
    assert len(seen) == 3


def test_a_clone_may_have_another_host_name_than_the_machine_that_waited(taken: Product) -> None:
    spare = waiting(taken)
    guest = taken.ok("run", "--from", SNAPSHOT, "--hostname", "elsewhere").strip()
    told = taken.ok("exec", guest, "busybox", "sh", "-c", "hostname; cat /etc/hostname /etc/hosts")
    assert guest == spare and told.splitlines()[:2] == ["elsewhere"] * 2
    assert told.splitlines()[-1].split()[1:] == ["elsewhere"] and guest not in told


def test_a_snapshot_that_is_removed_while_its_machine_is_made_leaves_nothing(taken: Product) -> None:
    for delay in (0.0, 0.1, 0.2, 0.4):
        (spare,) = eventually(lambda: folders(taken))
        time.sleep(delay)
        taken.ok("snapshot", "rm", SNAPSHOT)
        assert machine(taken, spare) == []
        eventually(partial(gone, taken, spare))  # the launcher removes its group meanwhile
        taken.ok("snapshot", "src", "ready")


def test_a_snapshot_that_is_removed_takes_its_machine_with_it(taken: Product) -> None:
    spare = waiting(taken)
    taps = census.interfaces(taken)
    taken.ok("snapshot", "rm", SNAPSHOT)
    assert machine(taken, spare) == []
    eventually(lambda: gone(taken, spare))
    eventually(lambda: census.interfaces(taken) <= taps)
    time.sleep(1.5)
    assert spares(taken) == []


def test_when_the_machine_that_waits_is_killed_the_next_clone_starts_all_the_same(taken: Product) -> None:
    spare = waiting(taken)
    for number in machine(taken, spare):
        os.kill(number, signal.SIGKILL)
    eventually(lambda: gone(taken, spare))
    guest = taken.ok("run", "--from", SNAPSHOT).strip()
    assert guest != spare and taken.ok("exec", guest, "busybox", "hostname") == f"{guest}\n"


@pytest.mark.parametrize("part", ["api.daemon", "guest.launcher"])
def test_it_goes_with_a_daemon_or_a_launcher_that_is_killed(taken: Product, part: str) -> None:
    spare = waiting(taken)
    number = taken.pid(part)
    assert number is not None
    os.kill(number, signal.SIGKILL)
    eventually(lambda: taken.run("ps").returncode == 0)
    eventually(lambda: gone(taken, spare))
    eventually(lambda: machine(taken, spare) == [])
    guest = taken.ok("run", "--from", SNAPSHOT).strip()
    assert guest != spare and taken.ok("exec", guest, "busybox", "hostname") == f"{guest}\n"


def test_it_goes_with_a_daemon_that_leaves(taken: Product) -> None:
    spare = waiting(taken)
    taken.stop_daemon()
    eventually(lambda: gone(taken, spare))
    assert taken.json("ps")[0]["name"] == "src"


def test_a_clone_that_is_refused_leaves_the_machine_to_the_next_one(taken: Product) -> None:
    """A name that is in use is found before it is told anything; a port that is in use, after: then it goes."""
    spare = waiting(taken)
    done = taken.run("run", "--from", SNAPSHOT, "--name", "src")
    assert done.returncode == 125 and "in use" in done.stderr
    assert waiting(taken) == spare
    port = taken.json("inspect", "src")[0]["network"]["ports"][0].split("->")[0].rpartition(":")[2]
    done = taken.run("run", "--from", SNAPSHOT, "-p", f"127.0.0.1:{port}:80")
    assert done.returncode == 125 and port in done.stderr
    eventually(lambda: gone(taken, spare))
    assert len(taken.json("ps", "-a")) == 1
    assert taken.ok("run", "--from", SNAPSHOT).strip() != spare


def test_a_clone_that_is_to_leave_nothing_is_another_machine(taken: Product) -> None:
    spare = waiting(taken)
    guest = taken.ok("run", "--from", SNAPSHOT, "--rm").strip()
    assert guest != spare
    eventually(lambda: len(spares(taken)) == 1 and spares(taken) != [spare])  # the last that was asked for is expected
    eventually(lambda: gone(taken, spare))
    wanted = waiting(taken)
    assert taken.ok("run", "--from", SNAPSHOT, "--rm").strip() == wanted


def test_a_stopped_clone_of_a_snapshot_that_is_gone_does_not_become_another_one(taken: Product) -> None:
    taken.ok("run", "--from", SNAPSHOT, "--name", "old")
    taken.ok("stop", "old")
    taken.ok("start", "old")
    taken.ok("stop", "old")
    taken.ok("snapshot", "rm", SNAPSHOT)
    for _ in range(2):
        done = taken.run("start", "old")
        assert done.returncode == 125 and "guest old is a clone of a snapshot that is gone (src:ready)" in done.stderr
        taken.run("snapshot", "src", "ready")  # another one of this name is another one
    assert [each["clones"] for each in taken.json("snapshot", "ls")] == [[]]


def test_many_at_once_are_all_somebody_else(taken: Product) -> None:
    waiting(taken)
    begun = [taken.spawn("run", "--from", SNAPSHOT) for _ in range(4)]
    ids = [each.communicate(timeout=120)[0].strip() for each in begun]
    assert len({*ids}) == 4 and [each.returncode for each in begun] == [0] * 4
    addresses = {taken.json("inspect", each)[0]["network"]["address"] for each in ids}
    assert len(addresses) == 4
    for each in ids:
        assert taken.ok("exec", each, "busybox", "hostname") == f"{each}\n"
    eventually(lambda: len(spares(taken)) == 1)


def test_none_waits_where_none_is_wanted(tmp_path: Path, kernel: Kernel) -> None:
    with installed(tmp_path, kernel, SWIFTLET_SPARES="0") as product:
        product.ok("run", "--name", "src", *VM, "--", "busybox", "sleep", "1000")
        product.ok("snapshot", "src", "ready")
        guest = product.ok("run", "--from", SNAPSHOT).strip()
        time.sleep(1.5)
        assert spares(product) == []
        product.ok("rm", "-f", guest, "src")
        product.ok("snapshot", "rm", SNAPSHOT)
